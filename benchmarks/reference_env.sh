#!/bin/sh
# Environments of the public reference implementations, for benchmarks/esen_speed.py --environments FOLDER.
#
#     benchmarks/reference_env.sh FOLDER [PYTHON]
#
# FOLDER (outside the repository; about 3.5 GB) gets fairchem-1.10.0/ and fairchem-2.24.0/. PYTHON: 3.11 (default
# python3). torch comes first and is then held: a resolver left free brings gigabytes of CUDA packages. For the same
# reason the reference itself is installed without its requirements (1.10.0 asks for torch 2.4, 2.24.0 for CUDA
# kernels that a CPU has no use for), and they are named here.
set -eu
folder=$1
python=${2:-python3}
torch=2.13.0
mkdir -p "$folder"
echo "torch==$torch" > "$folder/constraints.txt"

make_environment() { # name, then the requirements
    environment=$folder/fairchem-$1
    reference=fairchem-core==$1
    shift
    "$python" -m venv "$environment"
    pip="$environment/bin/python -m pip --quiet --disable-pip-version-check"
    $pip install "torch==$torch"
    $pip install --constraint "$folder/constraints.txt" "$@"
    $pip install --no-deps "$reference"
}

common="hydra-core omegaconf orjson pydantic pyyaml requests submitit tqdm huggingface-hub numba torchtnt==0.2.4 wandb"

# shellcheck disable=SC2086 # words on purpose
make_environment 1.10.0 numpy==2.2.6 e3nn==0.5.1 torch-geometric==2.8.1 ase==3.29.0 lmdb pymatgen tensorboard $common
# It asks torch_scatter for one function, which torch-geometric has too; torch_scatter itself would have to be compiled.
stub=$("$folder/fairchem-1.10.0/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_scatter
mkdir -p "$stub"
echo 'from torch_geometric.utils import scatter as scatter' > "$stub/__init__.py"

# shellcheck disable=SC2086
make_environment 2.24.0 numpy==2.4.6 e3nn==0.6.0 ase==3.29.0 ase-db-backends==0.11.0 lmdb==1.7.3 'setuptools<81' \
    clusterscope==0.0.18 backoff monty scipy websockets $common

for environment in "$folder"/fairchem-*; do
    "$environment/bin/python" -c 'import torch; print(torch.__version__)'
done
