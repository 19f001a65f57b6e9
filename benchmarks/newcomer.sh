#!/usr/bin/env bash
# A newcomer's first minutes, timed: clone, install, first score, `make demo`, first notebook.
#
#     benchmarks/newcomer.sh [REPOSITORY]
#
# In a new folder, which is removed at the end, with nothing kept from earlier: no packages, no
# compiled programs. REPOSITORY is an address or a folder; this checkout by default. Prints the
# seconds of each step and since the start. Downloads are as fast as the package index is.

set -euo pipefail
repository=${1:-$(cd "$(dirname "$0")/.." && pwd)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PIP_NO_CACHE_DIR=1 XDG_CACHE_HOME=$folder/cache
unset JAX_COMPILATION_CACHE_DIR PYTHONPATH

last=0 begin=$(date +%s%N)
step() {
    local name=$1 now
    shift
    "$@" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
    now=$((($(date +%s%N) - begin) / 100000000))
    printf '%-28s %6d.%d s   %4d min %02d s since the start\n' "$name" \
        $(((now - last) / 10)) $(((now - last) % 10)) $((now / 600)) $((now / 10 % 60))
    last=$now
}

step "clone" git clone --quiet "$repository" "$folder/glpi_jax"
cd "$folder/glpi_jax"
step "install" make --quiet .venv/.demo-installed
photograph=$(echo .venv/lib/python3*/site-packages/skimage/data/coffee.png)
step "first score" .venv/bin/glpi score "$photograph"
step "make demo" make --quiet demo
step "install the notebooks' extra" make --quiet .venv/.colab-installed
step "first notebook" .venv/bin/jupyter execute colab/01_score_your_photo.ipynb
