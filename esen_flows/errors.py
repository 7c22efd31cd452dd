"""Every failure that a user can meet, as a type.

A message says what was wrong, what was got and what to do. `final` tells the store whether the same input can ever
succeed: a final failure is stored as the result, and any other leaves the work pending.
"""

from typing import Any


class StructureWarning(UserWarning):
    """Something was decided where a structure file leaves it open, such as the element of a label.

    The command line prints the message without a traceback. Check that the structure is the one that was meant.
    """


class EsenFlowsError(Exception):
    """Base of all errors that this package raises on purpose.

    The command line prints the message without a traceback. The message names the remedy.
    """

    final = False
    exit_code = 1  # of the command line


class InputError(EsenFlowsError, ValueError):
    """Input cannot be used: a missing file, an unreadable structure, an unknown option.

    Correct the input that the message names.
    """

    final = True


class StructureError(InputError):
    """A structure cannot be evaluated by any force field: overlapping atoms, NaN positions, wrong periodicity.

    Correct the structure, or leave it out.
    """


class UnknownElementError(StructureError):
    """A structure holds an element that the force field was not trained on.

    Use another force field, or leave the structure out.
    """


class ModelError(InputError):
    """A force field cannot be loaded: its name is unknown, or its checkpoint is missing or corrupted.

    Use one of the names in the message, or fetch the checkpoint again.
    """


class NotConservativeError(ModelError):
    """A property needs energy-conserving forces, and the force field does not declare them.

    Use a conservative force field, such as one that was fine-tuned on gradients.
    """


class NotDifferentiableError(ModelError):
    """A property needs exact second derivatives of the energy, and the force field does not have them.

    Use finite displacements, or one of this package's own conservative networks.
    """


class NotConvergedError(EsenFlowsError):
    """A relaxation used all its steps without reaching its force criterion.

    Allow more steps, loosen the criterion, or begin from a better structure.
    """

    final = True


class ExplosionError(EsenFlowsError):
    """A relaxation or a trajectory left all bounds of forces, volume or distances.

    The force field cannot describe this structure: use another one, or begin from a better structure.

    Attributes
    ----------
    positions_angstrom
        (frames, n, 3) positions of the frames that a trajectory had recorded; None for a relaxation.
    """

    final = True
    positions_angstrom: Any = None


class SymmetryBrokenError(EsenFlowsError):
    """A relaxation left the space group that it had to keep.

    Relax without fixed symmetry, or begin from a structure of the symmetry that is expected.
    """

    final = True


class ImaginaryModesError(EsenFlowsError):
    """The crystal is dynamically unstable, so that the property is undefined.

    Relax the crystal along the unstable mode, or study another phase.
    """

    final = True


class EvaluationError(EsenFlowsError):
    """A force field gave NaN or infinity.

    Check the interatomic distances of the structure, or use dtype float64.
    """

    final = True


class CalculatorDiedError(EvaluationError):
    """The process in which another package evaluates structures crashed, hung, or gave an answer of the wrong form.

    Try the structure again, on another machine or with another force field; the message ends with the last words of the
    process.
    """

    final = False


class InsufficientMemoryError(EsenFlowsError):
    """A structure does not fit into memory, not even in the smallest parts.

    Use a device with more memory, a smaller structure, or float32.
    """


class ProcessDiedError(EsenFlowsError):
    """The processes that evaluated a structure were killed or crashed.

    Try another machine or another force field; with these, the structure may succeed.
    """


class FolderInUseError(EsenFlowsError):
    """Another process writes into the same folder.

    Wait for it or end it, or choose another folder.
    """


class StoreError(EsenFlowsError):
    """The database cannot be used in the way that was requested.

    Follow the message.
    """


class ServerUnavailableError(StoreError):
    """No database server could be reached or started.

    Start the server that the settings name, or check the network; the work stays pending.
    """


class ClaimedElsewhereError(StoreError):
    """Another live process is computing this result.

    Wait for it, or work on something else in the meantime.
    """
