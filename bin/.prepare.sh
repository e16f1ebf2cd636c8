# Sourced by bin/demo, bin/docs and bin/test, from the top of the checkout.

say() { printf '==> %s\n' "$*"; }

give_up() {  # EXIT_CODE LINE
    printf '%s: %s\n' "$0" "$2" >&2
    exit "$1"
}

# Make sure that Debian packages are installed: as root by installing them, else by ending with 69. One whose program is there counts as
# installed: NodeSource's nodejs brings npm, and conflicts with Debian's.
require_packages() {  # PACKAGE...
    command -v dpkg-query >/dev/null || { say "not a Debian system, so these are taken for granted: $*"; return; }
    local missing=() package
    python3 -c 'import ensurepip, venv' 2>/dev/null || set -- "$@" python3-venv
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            command -v "$package" >/dev/null || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || give_up 69 "missing Debian packages; as root: apt-get install ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Programs are wanted, and none of the services that come with them: no broker or server is to listen after that.
    local policy=/usr/sbin/policy-rc.d status=0
    [[ -e $policy ]] && policy='' || install -m 755 /dev/stdin "$policy" <<<$'#!/bin/sh\nexit 101'
    apt-get -qq update || say "apt-get update failed; trying with the package lists there are"
    apt-get -qq install --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null </dev/null || status=$?
    [[ -z $policy ]] || rm -f "$policy"
    ((status == 0)) ||
        give_up 69 "apt-get could not install: ${missing[*]}"
}

# Make .venv, unless it is there, and install this checkout into it with an extra, unless that has been done.
require_venv() {  # EXTRA
    local wanted extra
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        give_up 69 "python3 is missing or older than 3.11"
    wanted="$PWD $(cat setup.cfg pyproject.toml | sha256sum)"
    for extra in "$1" test; do  # test includes the others
        if [[ $(cat ".venv/installed-$extra" 2>/dev/null) == "$wanted" ]] && .venv/bin/python -c '' 2>/dev/null; then
            return 0
        fi
    done
    say "installing clouduploader[$1] into .venv; this takes a minute or two"
    # What another script has made of this very checkout is only added to.
    grep -qsxF "$wanted" .venv/installed-* && .venv/bin/python -c '' 2>/dev/null || python3 -m venv --clear .venv ||
        give_up 73 "$PWD/.venv can't be made"
    .venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check -e ".[$1]" </dev/null ||
        give_up 69 "pip could not install clouduploader[$1]"
    printf '%s\n' "$wanted" >".venv/installed-$1"
}
