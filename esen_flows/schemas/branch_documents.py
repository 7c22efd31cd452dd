"""The document of one branch of an exploration."""

from esen_flows.schemas.document_base import Array
from esen_flows.schemas.documents import RelaxOutput


class BranchOutput(RelaxOutput):
    """A structure relaxed after a displacement along an imaginary mode of another one.

    Attributes
    ----------
    frequency_thz
        Frequency of the mode in THz, negative.
    q_point
        (3,) its wave vector in reduced coordinates of the other structure's primitive cell; one arm of its star.
    degeneracy
        Number of modes with this frequency in the supercell, all arms of the star included.
    amplitudes_angstrom
        (n,) displacements of the atom that moves most in Angstrom, the undisplaced structure included.
    energies_per_atom_ev
        (n,) energies per atom in eV along the mode, in the cell of the undisplaced structure.
    amplitude_angstrom
        The amplitude from which the relaxation started, in Angstrom.
    subgroup
        International number of the space group of the displaced structure, which the relaxation kept.
    snapped
        Whether the relaxation ended at a structure of higher symmetry, and was repeated with that symmetry.
    energy_change_per_atom_ev
        Energy per atom in eV after the relaxation, less that of the undisplaced structure.
    """

    frequency_thz: float
    q_point: Array
    degeneracy: int
    amplitudes_angstrom: Array
    energies_per_atom_ev: Array
    amplitude_angstrom: float
    subgroup: int
    snapped: bool
    energy_change_per_atom_ev: float
