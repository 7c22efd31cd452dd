#!/usr/bin/env bash
# Installs the queue that the tests of marker `slurm` start by themselves: SLURM's daemons and munge, 13 MB of packages
# of Debian and Ubuntu. Nothing is started here, and what is there already is left as it is.
set -euo pipefail

# Debian installs daemons where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/sbin:/sbin"

missing() {
    local program
    for program in munged slurmctld slurmd sbatch squeue; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

fail() {
    printf '.ci/slurm.sh: %s\n' "$@" >&2
    exit 1
}

[ -n "$(missing)" ] || { echo ".ci/slurm.sh: SLURM is installed"; exit 0; }
advice="install slurmctld, slurmd, slurm-client and munge, or set ESEN_FLOWS_CI_WITHOUT_SLURM=1 to leave these tests out"
command -v apt-get >/dev/null || fail "no $(missing | xargs), and no apt-get to install them" "$advice"

root=()
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "no $(missing | xargs), and neither root nor sudo to install them" "$advice"
    root=(sudo -n)
fi
# The packages would start daemons of the whole machine, which nobody asked for.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
    trap '"${root[@]}" rm -f "$policy"' EXIT
fi
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
"${apt[@]}" update || echo ".ci/slurm.sh: apt-get update failed; trying with the lists that are there" >&2
"${apt[@]}" install -y --no-install-recommends slurmctld slurmd slurm-client munge ||
    fail "apt-get could not install SLURM" "$advice"
[ -z "$(missing)" ] || fail "installed, and still no $(missing | xargs)" "$advice"
