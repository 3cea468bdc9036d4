#!/usr/bin/env bash
# Writes requirements/*.txt from pyproject.toml: every package at one version, every file by its hash, and no
# address of a registry. What is locked already stays; `scripts/lock.sh --upgrade` takes the newest that fits.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # compile NAME ARGUMENT...
    local name=$1
    shift
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --custom-compile-command "make lock" --output-file "requirements/$name.txt" "$@" pyproject.toml
    echo "requirements/$name.txt: $(grep -c '^[a-z].*==' "requirements/$name.txt") packages"
}

# dev holds everything that is tested, so the others may differ from it in nothing but length.
compile dev --all-extras --group dev "$@"
compile agent --constraints requirements/dev.txt "$@"
compile controller --extra controller --constraints requirements/dev.txt "$@"
compile analysis --extra analysis --constraints requirements/dev.txt "$@"
# Only the group: the site generator reads Markdown, the benches' rivals are asked from outside; neither needs ours.
for group in docs bench packaging; do
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --custom-compile-command "make lock" --output-file "requirements/$group.txt" \
        --constraints requirements/dev.txt --group "$group" "$@"
    echo "requirements/$group.txt: $(grep -c '^[a-z].*==' "requirements/$group.txt") packages"
done

if grep -nE '://|file:|[ @]/|--(extra-)?index|--find-links' requirements/*.txt; then
    echo "a lock names an address or a path of this machine; see the lines above" >&2
    exit 1
fi
