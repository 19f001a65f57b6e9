#!/bin/sh
# Make a Python virtual environment with pip: launch/make_venv.sh [--dry-run] [FOLDER]
#
# FOLDER is .venv unless given; an environment that works already is kept. PYTHON=… chooses the
# interpreter; else it is the newest of 3.13, 3.12 and 3.11 that is installed.
#
# Debian and Ubuntu leave ensurepip out of python3, so that `python3 -m venv` fails on a plain
# system. Then uv makes the environment if it is there; else pip comes from Debian's own package
# python3-pip-whl, which apt-get fetches and verifies, without root and without installing it.
set -eu

fail() {
    echo "make_venv: $*" >&2
    exit 1
}

dry_run=no
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
[ $# -le 1 ] || fail "usage: launch/make_venv.sh [--dry-run] [FOLDER]"
venv=${1:-.venv}

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

has_pip() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

if [ -x "$venv/bin/python" ] && supported "$venv/bin/python" && has_pip; then
    echo "make_venv: keeping $venv ($("$venv/bin/python" --version))"
    exit 0
fi
if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    fail "$venv is in the way and is no virtual environment: move it away."
fi

python=
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if command -v "$candidate" >/dev/null 2>&1 && supported "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    if [ -n "${PYTHON:-}" ]; then
        found="PYTHON=$PYTHON is none of these"
    else
        found="here is $(python3 --version 2>&1)" || found="here is no python3"
    fi
    fail "Python 3.11, 3.12 or 3.13 is needed and $found: install one, or name it with 'make PYTHON=/path/to/python3.12'."
fi
echo "make_venv: $venv with $("$python" --version) ($(command -v "$python"))"
[ "$dry_run" = no ] || exit 0

work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Fetch Debian's wheel of pip into $work, with the system's package lists or, where these are
# missing or stale, with fresh ones of our own.
fetch_pip_wheel() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || return 1
    (
        cd "$work"
        mkdir -p lists/partial cache/archives/partial
        private="-o Dir::State::Lists=$work/lists -o Dir::Cache=$work/cache"
        # $private is several words on purpose.
        # shellcheck disable=SC2086
        apt-get download python3-pip-whl ||
            { apt-get $private update && apt-get $private download python3-pip-whl; }
        dpkg-deb -x python3-pip-whl_*.deb .
    ) >>"$log" 2>&1
}

with_pip_wheel() {
    fetch_pip_wheel || return 1
    wheel=$(echo "$work"/usr/share/python-wheels/pip-*.whl)
    {
        "$python" -m venv --without-pip "$venv" &&
            "$venv/bin/python" "$wheel/pip" install --no-index --no-deps "$wheel"
    } >>"$log" 2>&1
}

rm -rf "$venv"
if "$python" -m venv "$venv" >>"$log" 2>&1 && has_pip; then
    exit 0
fi
rm -rf "$venv"
if command -v uv >/dev/null 2>&1 && uv venv --quiet --seed --python "$python" "$venv" >>"$log" 2>&1; then
    exit 0
fi
rm -rf "$venv"
echo "make_venv: this Python has no ensurepip; fetching Debian's pip"
if with_pip_wheel && has_pip; then
    exit 0
fi
rm -rf "$venv"
tail -n 5 "$log" >&2
fail "no virtual environment with pip can be made here: run 'apt-get install python3-venv' as root and try again."
