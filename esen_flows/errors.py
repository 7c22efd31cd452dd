"""Every failure a user can meet, as a type.

A message says what was wrong, what it got and what to do. `final` tells the store whether asking again with the same
input can ever succeed: a final failure is an answer, the others are pending work.
"""


class EsenFlowsError(Exception):
    """Base of all errors that this package raises on purpose; the command line prints them without a traceback."""

    final = False
    exit_code = 1  # of the command line


class InputError(EsenFlowsError, ValueError):
    """What the user gave cannot be used: a missing file, an unreadable structure, an unknown option."""

    final = True


class StructureError(InputError):
    """A structure that no force field should be asked about: overlapping atoms, NaN positions, wrong periodicity."""


class UnknownElementError(StructureError):
    """An element that the force field was never trained on."""


class ModelError(InputError):
    """A force field that cannot be loaded: unknown name, missing or corrupted checkpoint."""


class NotConservativeError(ModelError):
    """A property that needs energy-conserving forces was asked of a force field that does not declare them."""


class NotDifferentiableError(ModelError):
    """Exact second derivatives were asked of a force field that does not have them."""


class NotConvergedError(EsenFlowsError):
    """A relaxation used up its steps."""

    final = True


class ExplosionError(EsenFlowsError):
    """A relaxation or a trajectory left all bounds: the force field is of no use for this structure."""

    final = True


class SymmetryBrokenError(EsenFlowsError):
    """A relaxation left the space group that it had to keep."""

    final = True


class ImaginaryModesError(EsenFlowsError):
    """The crystal is dynamically unstable, so that the property asked for is undefined."""

    final = True


class EvaluationError(EsenFlowsError):
    """A force field returned NaN or infinity."""

    final = True


class InsufficientMemoryError(EsenFlowsError):
    """A structure does not fit into memory however small its parts; on a larger machine it may."""


class ProcessDiedError(EsenFlowsError):
    """A structure ended the processes that evaluated it; elsewhere, or with another force field, it may not."""


class StoreError(EsenFlowsError):
    """The database cannot be used as asked."""


class ServerUnavailableError(StoreError):
    """No database server could be reached or started."""


class ClaimedElsewhereError(StoreError):
    """Another live process is computing this result."""
