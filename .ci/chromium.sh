#!/usr/bin/env bash
# Installs the browser that the tests of marker `chromium` open pages in: Chromium and its driver, packages of Debian.
# Ubuntu's packages of these names only point to snap, so that a runner there has to bring its own. What is there already
# is left as it is.
set -euo pipefail

missing() {
    local program
    for program in chromium chromedriver; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

fail() {
    printf '.ci/chromium.sh: %s\n' "$@" >&2
    exit 1
}

[ -n "$(missing)" ] || { echo ".ci/chromium.sh: Chromium is installed"; exit 0; }
advice="install chromium and chromedriver (Debian: chromium, chromium-driver), or set ESEN_FLOWS_CI_WITHOUT_CHROMIUM=1"
command -v apt-get >/dev/null || fail "no $(missing | xargs), and no apt-get to install them" "$advice"

root=()
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "no $(missing | xargs), and neither root nor sudo to install them" "$advice"
    root=(sudo -n)
fi
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=60)
"${apt[@]}" update || echo ".ci/chromium.sh: apt-get update failed; trying with the lists that are there" >&2
"${apt[@]}" install -y --no-install-recommends chromium chromium-driver || fail "apt-get could not install Chromium" "$advice"
[ -z "$(missing)" ] || fail "installed, and still no $(missing | xargs)" "$advice"
