#!/usr/bin/env bash
# Makes this checkout ready to run: system tools, .venv and the packages of the extras named.
#
#   scripts/setup.sh EXTRAS TOOL...      e.g. scripts/setup.sh dev bwrap git chromedriver?
#
# Costs milliseconds when everything is there already. A tool that is missing is installed through the system's package
# manager where this user may; otherwise one sentence says what to ask for, and set-up goes on without it only where its
# name ends in "?". TURNWISE_PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
cpu_index=https://download.pytorch.org/whl/cpu
probe_s=10

say() { printf 'turnwise set-up: %s\n' "$*" >&2; }
die() { printf 'turnwise set-up: %s\n' "$*" >&2; exit 1; }

manager() {
    local name
    for name in apt-get dnf pacman apk; do
        if command -v "$name" >/dev/null; then echo "$name"; return; fi
    done
}

# What a package manager calls the package that brings a tool.
package_for() {
    case "$1:$2" in
        bwrap:*) echo bubblewrap ;;
        ensurepip:apt-get) echo "python3-venv" ;;
        ensurepip:*) echo "python3" ;;
        dockerd:apt-get) echo "docker.io" ;;
        dockerd:*) echo "docker" ;;
        chromedriver:apt-get) echo "chromium chromium-driver" ;;
        chromedriver:dnf) echo "chromium chromedriver" ;;
        chromedriver:pacman) echo "chromium" ;;
        chromedriver:apk) echo "chromium chromium-chromedriver" ;;
        *) echo "$1" ;;
    esac
}

install_command() {
    case "$1" in
        apt-get) echo "apt-get install -y" ;;
        dnf) echo "dnf install -y" ;;
        pacman) echo "pacman -S --noconfirm" ;;
        apk) echo "apk add" ;;
    esac
}

# The prefix under which this user may install packages: nothing for root, sudo where it asks no password, else failure.
privilege() {
    if [ "$(id -u)" = 0 ]; then echo "env"; elif sudo -n true 2>/dev/null; then echo "sudo env"; else return 1; fi
}

install_tool() {
    local tool=$1 with prefix packages command
    with=$(manager)
    [ -n "$with" ] || die "$tool is missing and no known package manager is here to install it; install $(package_for "$tool" none) and run make again."
    packages=$(package_for "$tool" "$with")
    command="$(install_command "$with") $packages"
    prefix=$(privilege) || die "$tool is missing and this user may not install it; ask an administrator to run '$command', then run make again."
    say "installing $packages ($command)"
    if [ "$with" = apt-get ]; then $prefix apt-get update -qq >&2 || true; fi
    # shellcheck disable=SC2086  # both are lists of words
    $prefix DEBIAN_FRONTEND=noninteractive $command >&2 || die "'$command' failed; see above."
}

find_python() {
    local candidate
    for candidate in ${TURNWISE_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    candidate=${TURNWISE_PYTHON:-python3}
    die "needs Python 3.11 or newer, and $candidate is $("$candidate" --version 2>/dev/null || echo missing); install one, or name it: TURNWISE_PYTHON=/path/to/python3.12 make …"
}

# Modules are compiled when they are first imported (--no-compile): most of what torch and transformers bring never is.
# torch comes first and from its CPU index where there is no GPU: the registry's own wheel may bring gigabytes of CUDA.
install_torch() {
    local torch index=()
    torch=$(sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
    if ! nvidia-smi -L >/dev/null 2>&1 && cpu_index_answers; then index=(--extra-index-url "$cpu_index"); fi
    .venv/bin/pip install --no-compile "${index[@]}" "$torch" >&2 || die "pip could not install $torch; see above."
}

cpu_index_answers() {
    .venv/bin/python - "$cpu_index/torch/" "$probe_s" <<'PYTHON' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).close()
PYTHON
}

make_venv() {
    local extras=$1 wanted python
    wanted=$(sha256sum pyproject.toml)
    if [ -e .venv/bin/turnwise ] && grep -qsxF "$wanted" ".venv/installed-$extras" .venv/installed-dev; then return; fi
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_tool ensurepip
    say "making .venv and installing turnwise[$extras] (minutes the first time)"
    "$python" -m venv .venv
    install_torch
    .venv/bin/pip install --no-compile --editable ".[$extras]" >&2 || die "pip could not install turnwise[$extras]; see above."
    echo "$wanted" >".venv/installed-$extras"
}

main() {
    local extras=$1 tool
    shift
    for tool in "$@"; do
        command -v "${tool%\?}" >/dev/null || (install_tool "${tool%\?}") || [ "$tool" != "${tool%\?}" ] || exit 1
    done
    make_venv "$extras"
}

main "$@"
