#!/usr/bin/env bash
# Installs packages of Debian and Ubuntu that some tests need; what is there already is left as it is.
#
#   .ci/install.sh slurm      the queue that tests of marker `slurm` start by themselves: SLURM's daemons and munge, 13 MB
#   .ci/install.sh chromium   the browser that tests of marker `chromium` open pages in, and its driver. Ubuntu's packages
#                             of these names only point to snap, so that a runner there has to bring its own.
set -euo pipefail

fail() {
    printf '.ci/install.sh: %s\n' "$@" >&2
    exit 1
}

case "${1-}" in
    slurm) programs="munged slurmctld slurmd sbatch squeue" packages="slurmctld slurmd slurm-client munge" ;;
    chromium) programs="chromium chromedriver" packages="chromium chromium-driver" ;;
    *) fail "expected slurm or chromium, got '${1-}'" ;;
esac
without="ESEN_FLOWS_CI_WITHOUT_${1^^}=1"

# Debian installs daemons where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/sbin:/sbin"

missing() {
    local program
    for program in $programs; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

[ -n "$(missing)" ] || { echo ".ci/install.sh: $1 is installed"; exit 0; }
advice="install the packages $packages, or set $without to leave these tests out"
command -v apt-get >/dev/null || fail "no $(missing | xargs), and no apt-get to install them" "$advice"

root=()
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "no $(missing | xargs), and neither root nor sudo to install them" "$advice"
    root=(sudo -n)
fi
# Packages of daemons would start them for the whole machine, which nobody asked for.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
    trap '"${root[@]}" rm -f "$policy"' EXIT
fi
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=60)
"${apt[@]}" update || echo ".ci/install.sh: apt-get update failed; trying with the lists that are there" >&2
# shellcheck disable=SC2086  # several words
"${apt[@]}" install -y --no-install-recommends $packages || fail "apt-get could not install $packages" "$advice"
[ -z "$(missing)" ] || fail "installed, and still no $(missing | xargs)" "$advice"
