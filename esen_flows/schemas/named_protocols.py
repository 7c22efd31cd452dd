"""Published protocols by name, as frozen values of the same class as any other protocol.

`general` is this package's own default: inversion-averaged, tight relaxation, supercells by length. The others are what
published tables were made with, so that a number can be compared with them.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms

from esen_flows.errors import InputError
from esen_flows.schemas.protocols import ConductivityProtocol, DisplacementProtocol, PhononProtocol, RelaxProtocol

ConductivityProtocolName = Literal["general", "phonondb-v1", "phonondb-v1-two-stage"]
PhononProtocolName = Literal["general", "mdr"]
# What the extended XYZ file of PhononDB's 103 crystals says of each.
FC2_SUPERCELL, FC3_SUPERCELL, MESH = "fc2_supercell", "fc3_supercell", "q_mesh"


def conductivity_protocol(name: str, atoms: Atoms) -> ConductivityProtocol:
    """A protocol by name, for a structure that may say its own supercells and mesh in `atoms.info`.

    "phonondb-v1" is the protocol of the 103 conductivities of Matbench Discovery as eSEN's entry ran it: one relaxation
    with FixSymmetry and without tilts, FIRE to 1e-4 eV/Angstrom in at most 300 steps and kept as it then is;
    displacements of 0.03 Angstrom, forces as the force field gives them; 300 K, isotopes in natural abundance, a
    boundary at 1 m; no negative frequency but below 0.01 THz of an acoustic branch at Gamma. "phonondb-v1-two-stage" is
    that of Pota, Ahlawat, Csanyi, Simoncelli, arXiv 2408.00755: a second, free relaxation that is thrown away where it
    changes the space group.

    Raises
    ------
    InputError
        no such name.
    """
    if name not in get_args(ConductivityProtocolName):
        raise InputError(f"no protocol {name!r} of a conductivity; there are {', '.join(names())}")
    if name == "general":
        return ConductivityProtocol()
    relax = RelaxProtocol(
        fmax_ev_per_angstrom=1e-4,
        max_steps=300,
        cell_mask=(True, True, True, False, False, False),
        symmetry="fix",
        symprec_angstrom=0.01,
        then_free=name == "phonondb-v1-two-stage",
        keep_unconverged=True,
    )
    return ConductivityProtocol(
        relax=relax,
        displacement=DisplacementProtocol(
            order=3,
            displacement_angstrom=0.03,
            parity="as_is",
            fc2_supercell=_matrix(atoms.info, FC2_SUPERCELL),
            fc3_supercell=_matrix(atoms.info, FC3_SUPERCELL),
        ),
        mesh=_mesh(atoms.info),
        temperatures_kelvin=(300.0,),
        methods=("rta", "wigner"),
        isotope_scattering=True,
        boundary_mfp_micrometre=1e6,
        imaginary_tolerance_thz=0.01,
        imaginary_test="gamma",
    )


def phonon_protocol(name: str, info: Mapping[str, Any]) -> PhononProtocol:
    """A protocol by name, for a structure that may say its own supercell in `info`.

    "mdr" is that of the MDR phonons as eSEN's authors ran them (A. Loew et al., npj Comput. Mater. 2025, made the
    benchmark): a free relaxation to 0.005 eV/Angstrom in at most 500 steps, displacements of 0.01 Angstrom, forces as
    the force field gives them, a mesh of 20 x 20 x 20, 0 to 600 K by 75 K. Not as they did: the unit cell is relaxed,
    not the primitive one, and force constants are symmetrised.

    Raises
    ------
    InputError
        no such protocol.
    """
    if name not in get_args(PhononProtocolName):
        raise InputError(f"no protocol {name!r} of a phonon; there are {', '.join(get_args(PhononProtocolName))}")
    if name == "general":
        return PhononProtocol()
    return PhononProtocol(
        relax=RelaxProtocol(fmax_ev_per_angstrom=0.005, max_steps=500, keep_unconverged=True),
        displacement=DisplacementProtocol(
            order=2,
            displacement_angstrom=0.01,
            symprec_angstrom=1e-4,
            parity="as_is",
            fc2_supercell=_matrix(info, FC2_SUPERCELL),
        ),
        mesh=(20, 20, 20),
        temperatures_kelvin=tuple(float(t) for t in range(0, 601, 75)),
    )


def names() -> tuple[str, ...]:
    """The names of conductivity protocols."""
    return get_args(ConductivityProtocolName)


def check_supercells(protocol: ConductivityProtocol, name: str) -> None:
    """Refuse a published protocol whose supercells nobody has said.

    Raises
    ------
    InputError
        with the fields to set.
    """
    displacement = protocol.displacement
    if name != "general" and (displacement.fc2_supercell is None or displacement.fc3_supercell is None):
        raise InputError(
            f"the protocol {name} takes each structure's own supercells and mesh ({FC2_SUPERCELL}, {FC3_SUPERCELL} and "
            f"{MESH} in an extended XYZ file), and this one has none; give them with --set "
            "displacement.fc2_supercell=4,4,4 --set displacement.fc3_supercell=2,2,2 --set mesh=19,19,19"
        )


def _matrix(info: Mapping[str, Any], name: str) -> Any:
    return None if name not in info else np.asarray(info[name]).astype(int).tolist()


def _mesh(info: Mapping[str, Any]) -> tuple[int, int, int]:
    a, b, c = np.asarray(info.get(MESH, (19, 19, 19))).astype(int).ravel().tolist()
    return a, b, c
