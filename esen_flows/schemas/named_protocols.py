"""Published protocols by name, as frozen values of the same class as any other protocol.

"general" is this package's own default: averaged over inversion, with a tight relaxation and supercells by length.
Published tables were made with the others, so that numbers can be compared with them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from esen_flows.errors import InputError
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, PhononProtocol, RelaxProtocol

# Entries of each structure in the extended XYZ file of PhononDB's 103 crystals; published protocols use them.
FC2_SUPERCELL, FC3_SUPERCELL, MESH = OWN_SETTINGS = ("fc2_supercell", "fc3_supercell", "q_mesh")
# Entry of a structure of a molecular dynamics benchmark.
TEMPERATURE = "temperature_kelvin"


def own_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """Supercells, mesh and temperature that a structure gives itself.

    Parameters
    ----------
    info
        `atoms.info` of the structure.

    Returns
    -------
    dict[str, Any]
        Plain lists of integers, and the temperature in K, by name.

    Raises
    ------
    InputError
        An entry is not of numbers.
    """
    try:
        own: dict[str, Any] = {
            name: np.asarray(info[name]).astype(int).tolist() for name in OWN_SETTINGS if name in info
        }
        return own | ({TEMPERATURE: float(info[TEMPERATURE])} if TEMPERATURE in info else {})
    except (ValueError, TypeError) as error:
        names = ", ".join((*OWN_SETTINGS, TEMPERATURE))
        raise InputError(f"a structure has text or something else where numbers belong ({names}): {error}") from error


def phonondb_protocol(info: Mapping[str, Any], *, two_stage: bool = False) -> ConductivityProtocol:
    """The protocol of the 103 conductivities of Matbench Discovery as eSEN's entry ran it.

    One relaxation with FixSymmetry and without tilts, by FIRE to 1e-4 eV/Angstrom in at most 300 steps, whose result is
    kept even if it is not converged; displacements of 0.03 Angstrom; forces as the force field gives them; 300 K,
    isotopes in natural abundance, a boundary at 1 m; no negative frequencies except those below 0.01 THz of acoustic
    branches at Gamma.

    Parameters
    ----------
    info
        Supercells and mesh of the structure, from `atoms.info`.
    two_stage
        Whether a second, free relaxation follows, which is discarded where it changes the space group: the protocol of
        Pota, Ahlawat, Csanyi, Simoncelli, arXiv 2408.00755.

    Returns
    -------
    ConductivityProtocol
        The protocol.
    """
    own = own_settings(info)
    relax = RelaxProtocol(
        fmax_ev_per_angstrom=1e-4,
        max_steps=300,
        cell_mask=(True, True, True, False, False, False),
        symmetry="fix",
        symprec_angstrom=0.01,
        then_free=two_stage,
        keep_unconverged=True,
    )
    return ConductivityProtocol(
        relax=relax,
        displacement=DisplacementProtocol(
            order=3,
            displacement_angstrom=0.03,
            parity="as_is",
            fc2_supercell=own.get(FC2_SUPERCELL),
            fc3_supercell=own.get(FC3_SUPERCELL),
        ),
        mesh=tuple(np.ravel(own.get(MESH, (19, 19, 19))).tolist()),
        temperatures_kelvin=(300.0,),
        methods=("rta", "wigner"),
        isotope_scattering=True,
        boundary_mfp_micrometre=1e6,
        imaginary_tolerance_thz=0.01,
        imaginary_test="gamma",
    )


def mdr_protocol(info: Mapping[str, Any]) -> PhononProtocol:
    """The protocol of the MDR benchmark by eSEN's authors with symmetrised force constants (see `mdr_esen_protocol`).

    Earlier versions had no other; `mdr-esen` and `mdr-loew` are the published ones.

    Parameters
    ----------
    info
        Supercell of the structure, from `atoms.info`.

    Returns
    -------
    PhononProtocol
        The protocol.
    """
    return PhononProtocol(
        relax=RelaxProtocol(fmax_ev_per_angstrom=0.005, max_steps=500, keep_unconverged=True),
        displacement=DisplacementProtocol(
            order=2,
            displacement_angstrom=0.01,
            symprec_angstrom=1e-4,
            parity="as_is",
            fc2_supercell=own_settings(info).get(FC2_SUPERCELL),
        ),
        mesh=(20, 20, 20),
        temperatures_kelvin=tuple(float(t) for t in range(0, 601, 75)),
    )


def mdr_esen_protocol(info: Mapping[str, Any]) -> PhononProtocol:
    """The protocol of the MDR benchmark (A. Loew et al., npj Comput. Mater. 2025) as eSEN's authors ran it.

    A free relaxation to 0.005 eV/Angstrom in at most 500 steps, displacements of 0.01 Angstrom, forces and force
    constants as they are, a mesh of 20 x 20 x 20, 0 to 600 K in steps of 75 K. Unlike theirs, it relaxes the unit cell
    instead of the primitive one, which has the same minimum.

    Parameters
    ----------
    info
        Supercell of the structure, from `atoms.info`.

    Returns
    -------
    PhononProtocol
        The protocol.
    """
    return mdr_protocol(info).model_copy(update={"symmetrize": False})


def mdr_loew_protocol(info: Mapping[str, Any]) -> PhononProtocol:
    """The protocol of the MDR benchmark by its authors (A. Loew et al., npj Comput. Mater. 2025).

    A relaxation of the unit cell to 0.005 eV/Angstrom with FixSymmetry, displacements of 0.01 Angstrom, forces without
    their mean, symmetrised force constants, the mesh of a length of 100 Angstrom; 0, 75, 150, 300 and 600 K. How many
    steps a relaxation may take was not found; here it is 500.

    Parameters
    ----------
    info
        Supercell of the structure, from `atoms.info`.

    Returns
    -------
    PhononProtocol
        The protocol.
    """
    start = mdr_protocol(info)
    return start.model_copy(
        update={
            "relax": start.relax.model_copy(update={"symmetry": "fix"}),
            "displacement": start.displacement.model_copy(update={"symprec_angstrom": 1e-5}),
            "mesh_length_angstrom": 100.0,
            "remove_drift": True,
            "temperatures_kelvin": (0.0, 75.0, 150.0, 300.0, 600.0),
        }
    )
