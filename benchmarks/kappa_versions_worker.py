"""One force set through the phono3py of this environment: what `kappa_versions.py` runs, once per version.

    python kappa_versions_worker.py FORCES.npz RESULT.json MESH

FORCES.npz is phono3py's own first-type dataset, in arrays. Needs phono3py alone; written for 3.30 and 4.8.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import phono3py
import phonopy
from phono3py import Phono3py
from phonopy.structure.atoms import PhonopyAtoms

NEW = int(phono3py.__version__.split(".")[0]) >= 4
WIGNER = "SMM19" if NEW else "MS-SMM19"
# What esen_flows asks 4.8 for; 3.30 has none of these.
OURS = {"average_degenerate_weights": True, "symmetrize_tetrahedra": True, "exclude_gamma_acoustic": True}
SCATTERING = {"temperatures": [300.0], "is_isotope": True, "boundary_mfp": 1e6}


def crystal(data: Any) -> Phono3py:
    """Force constants of both orders: finite differences, then translations and permutations imposed."""
    cell = PhonopyAtoms(numbers=data["numbers"], positions=data["positions"], cell=data["cell"])
    ph3 = Phono3py(
        cell,
        data["fc3_matrix"],
        primitive_matrix=data["primitive_matrix"],
        phonon_supercell_matrix=data["fc2_matrix"],
        log_level=0,
    )
    ph3.dataset = json.loads(str(data["fc3_dataset"]))
    ph3.phonon_dataset = json.loads(str(data["fc2_dataset"]))
    # The forces as attributes, in the order in which both versions number supercells.
    ph3.forces = data["fc3_forces"]
    ph3.phonon_forces = data["fc2_forces"]
    ph3.produce_fc3(fc_calculator="traditional", is_compact_fc=True)
    ph3.produce_fc2(fc_calculator="traditional", is_compact_fc=True)
    ph3.symmetrize_fc3()
    ph3.symmetrize_fc2()
    return ph3


def transport(ph3: Phono3py, mesh: int, options: dict[str, bool]) -> dict[str, Any]:
    """Conductivities in W/m/K (xx, yy, zz), and seconds."""
    ph3.mesh_numbers = [mesh] * 3
    ph3.init_phph_interaction(symmetrize_fc3q=False, **options)
    ph3.run_phonon_solver()
    start = time.process_time()
    ph3.run_thermal_conductivity(**SCATTERING)
    rta = ph3.thermal_conductivity
    middle = time.process_time()
    ph3.run_thermal_conductivity(transport_type=WIGNER, **SCATTERING)
    wigner = ph3.thermal_conductivity
    names = ("kappa", "kappa_intra", "kappa_inter") if NEW else ("kappa_TOT_RTA", "kappa_P_RTA", "kappa_C")
    total, particle, coherence = (np.array(getattr(wigner, name))[0, 0, :3].tolist() for name in names)
    return {
        "rta": np.array(rta.kappa)[0, 0, :3].tolist(),
        "wigner": total,
        "wigner_particle": particle,
        "wigner_coherence": coherence,
        "mean_linewidth_thz": float(np.mean(rta.gamma)),
        "mean_isotope_linewidth_thz": float(np.mean(rta.gamma_isotope)),
        "max_frequency_thz": float(np.max(rta.frequencies)),
        "cpu_seconds_rta": round(middle - start, 2),
        "cpu_seconds_wigner": round(time.process_time() - middle, 2),
    }


def main() -> None:
    """Read, compute, write."""
    source, target, mesh = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with np.load(source) as data:
        ph3 = crystal(data)
    variants = {"defaults": {}, "esen_flows": OURS} if NEW else {"defaults": {}}
    content = {
        "phono3py": phono3py.__version__,
        "phonopy": phonopy.__version__,
        "fc2_norm": float(np.linalg.norm(ph3.fc2)),
        "fc3_norm": float(np.linalg.norm(ph3.fc3)),
        **{name: transport(ph3, mesh, options) for name, options in variants.items()},
    }
    with open(target, "w") as stream:
        json.dump(content, stream)


if __name__ == "__main__":
    main()
