#!/bin/sh
# The environment of phono3py 3.30.0, by which published leaderboard conductivities were computed, for kappa_versions.py.
#
#     benchmarks/phono3py330_env.sh FOLDER [PYTHON]
#
# FOLDER (outside the repository; about 0.4 GB) becomes a virtual environment of PYTHON (default python3; 3.11 is tested).
# phono3py 3.30.0 brings the phonopy that it was written for (3.5.1). No torch: it reads forces, it makes none.
set -eu
folder=$1
python=${2:-python3}
"$python" -m venv "$folder"
"$folder/bin/python" -m pip --quiet --disable-pip-version-check install phono3py==3.30.0 phonopy==3.5.1 numpy==2.4.6 spglib==2.8.0
"$folder/bin/python" -c 'import phono3py, phonopy; print("phono3py", phono3py.__version__, "phonopy", phonopy.__version__)'
