#!/usr/bin/env bash
# Makes .venv beside this file and installs esen_flows into it, with CPU torch and a private mongod.
#
#   ./setup.sh          to compute
#   ./setup.sh test     to compute, test, lint and type-check
#
# Environment, all optional:
#   ESEN_FLOWS_PYTHON       the interpreter to build on; otherwise the first usable of python3.11 to python3.13, python3
#   ESEN_FLOWS_TORCH        the torch requirement; otherwise the one of constraints.txt
#   ESEN_FLOWS_TORCH_INDEX  where torch comes from; set but empty: pip's own index; otherwise PyTorch's CPU wheels, or pip's
#                           own index where those cannot be reached
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# PyPI's torch for Linux brings gigabytes of CUDA libraries, so the CPU wheels are the default.
torch_index=${ESEN_FLOWS_TORCH_INDEX-https://download.pytorch.org/whl/cpu}
torch_requirement=${ESEN_FLOWS_TORCH:-$(grep -E '^torch==' constraints.txt)}
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    printf 'setup.sh: %s\n' "$@" >&2
    exit 1
}

case "${1-runtime}" in
    runtime) extras=embedded ;;
    test) extras=embedded,test,dev ;;
    *) fail "unknown argument '$1'; use './setup.sh' or './setup.sh test'" ;;
esac
[ $# -le 1 ] || fail "at most one argument, got $#: $*; use './setup.sh' or './setup.sh test'"

# A name on PATH is not enough: Debian ships python3 without venv, and version managers leave shims that do not run.
usable() {
    local answer
    answer=$("$1" -c 'import ensurepip, sys, venv; print((3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null)
    [ "$answer" = True ]
}

find_python() {
    local name
    for name in ${ESEN_FLOWS_PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if command -v "$name" >/dev/null && usable "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 with the venv module among: ${ESEN_FLOWS_PYTHON:-python3.11 python3.12 python3.13 python3}" \
        "on Debian 12 and Ubuntu 24.04: sudo apt-get install python3-venv; then run this again," \
        "or name an interpreter: ESEN_FLOWS_PYTHON=/path/to/python3.11 ./setup.sh"
}

make_venv() {
    local python
    if [ -e .venv ] && ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        fail ".venv is there but its python does not run or has no pip; remove it (rm -r .venv) and run this again"
    fi
    [ -e .venv ] && return
    python=$(find_python)
    echo "setup.sh: making .venv on $python ($("$python" --version))"
    "$python" -m venv .venv || {
        rm -rf .venv
        fail "'$python -m venv .venv' failed; on Debian and Ubuntu: sudo apt-get install python3-venv"
    }
}

# One look, because pip asks an index that does not answer for minutes. Nothing of the answer is used, so that the look
# needs no certificates; pip checks them when it installs.
reachable() {
    local proxy
    proxy=$(.venv/bin/python -m pip config get global.proxy 2>/dev/null) || proxy=${PIP_PROXY-}
    timeout 10 .venv/bin/python - "$1" "$proxy" <<'PYTHON' 2>/dev/null
import ssl, sys, urllib.request as request
index, proxy = sys.argv[1:]
handlers = [request.HTTPSHandler(context=ssl._create_unverified_context())]
if proxy:
    handlers.append(request.ProxyHandler({"http": proxy, "https": proxy}))
question = request.Request(index.rstrip("/") + "/torch/", method="HEAD")
request.build_opener(*handlers).open(question, timeout=5).close()
PYTHON
}

install_torch() {
    local index=$torch_index options=()
    # Only the default index is replaced; one that the user names is used or fails.
    if [ -z "${ESEN_FLOWS_TORCH_INDEX+set}" ] && ! reachable "$index"; then
        echo "setup.sh: $index cannot be reached; taking torch from pip's own index (on x86 a CUDA build of some GB)"
        index=
    fi
    [ -z "$index" ] || options=(--index-url "$index")
    echo "setup.sh: installing $torch_requirement from ${index:-the default index of pip}"
    .venv/bin/python -m pip install -q "${options[@]}" "$torch_requirement" || fail \
        "could not install $torch_requirement from ${index:-the default index of pip}" \
        "ESEN_FLOWS_TORCH and ESEN_FLOWS_TORCH_INDEX choose another version or index"
}

install_package() {
    local constraints=.venv/constraints.txt torch_version
    torch_version=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("torch"))')
    # Whatever torch was chosen stays: no resolver may replace it by a CUDA build.
    { grep -v '^torch==' constraints.txt; echo "torch==$torch_version"; } >"$constraints"
    echo "setup.sh: installing esen_flows[$extras] and what it needs (about two minutes)"
    .venv/bin/python -m pip install -q -c "$constraints" -e ".[$extras]" || fail "could not install esen_flows[$extras]"
    .venv/bin/python -m pip check
}

# The stamp says what the last complete run did; the folder counts because an editable install points to it.
wanted() {
    printf '%s\n' "$1" "$PWD" "$torch_requirement" "$torch_index"
    cat setup.sh pyproject.toml constraints.txt
}
fingerprint() { wanted "$1" | cksum; }

make_venv
stamp=.venv/esen_flows.setup
if [ -x .venv/bin/esen-flows ] && [ -f "$stamp" ]; then
    # What the tests need includes what computing needs.
    for done_extras in "$extras" embedded,test,dev; do
        [ "$(cat "$stamp")" != "$(fingerprint "$done_extras")" ] || { echo "setup.sh: .venv is up to date"; exit 0; }
    done
fi
rm -f "$stamp"
install_torch
install_package
fingerprint "$extras" >"$stamp"
echo "setup.sh: done; try .venv/bin/esen-flows --help"
