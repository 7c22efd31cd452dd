"""ASE's effective-medium theory of seven metals, behind the contract."""

from importlib.metadata import version

from ase.calculators.emt import EMT

from esen_flows.forcefield.contract import Declaration
from esen_flows.forcefield.third_party.any_ase import AseForceField
from esen_flows.schemas.keys import third_party_key

ELEMENTS = frozenset({13, 28, 29, 46, 47, 78, 79})


def emt(*, device: str = "cpu", dtype: str = "float64") -> AseForceField:
    """Effective-medium theory of Al, Ni, Cu, Pd, Ag, Pt and Au, for trial runs: a structure takes milliseconds.

    Parameters
    ----------
    device
        Has no effect: the theory runs on the CPU.
    dtype
        Has no effect: the theory computes in float64.

    Returns
    -------
    AseForceField
        Force field of the seven metals.
    """
    declaration = Declaration(
        conservative=True, equivariance="O3", differentiable=False, elements=ELEMENTS, dtype="float64"
    )
    key = third_party_key("ase", version("ase"), {})
    return AseForceField(EMT(), key=key, label="emt", declaration=declaration)
