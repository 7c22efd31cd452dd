import subprocess
import sys

import phono3py
import phonopy

from esen_flows.schemas.lattice_versions import lattice_versions
from esen_flows.schemas.protocols import NumericSettings


def test_versions_are_those_of_the_packages() -> None:
    versions = lattice_versions()
    assert phonopy.__version__.startswith(versions["phonopy"] + ".")
    assert phono3py.__version__.startswith(versions["phono3py"] + ".")
    assert NumericSettings(**versions).lattice_backend == "native"
    assert lattice_versions("Rust")["lattice_backend"] == "Rust"


def test_asking_imports_neither_package() -> None:
    code = (
        "import sys; from esen_flows.schemas.lattice_versions import lattice_versions; lattice_versions(); "
        "print(sorted({'phonopy', 'phono3py', 'torch', 'ase'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
