#!/usr/bin/env bash
# Runs the named suites of tests/ one after the other, goes on after a failure, and ends with one line each.
# A suite that is missing or collects no test fails: silence is not success.
#   scripts/suites.sh [--seconds N] SUITE...      N is for all of them together
set -uo pipefail
cd "$(dirname "$0")/.."

# Suites whose tests only compute: they share the machine's cores.
PARALLEL=" unit property golden fuzz "
# Suites that change network namespaces: they are run as root.
PRIVILEGED=" kernel fleet stories "

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo --preserve-env=CI,CELLWALL_SOAK,PYTHONDONTWRITEBYTECODE)
seconds=600
if [ "${1:-}" = --seconds ]; then
    seconds=$2
    shift 2
fi
export PYTHONDONTWRITEBYTECODE=1 # root must leave no files that the user cannot remove

declare -a closing=()
failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for suite in "$@"; do
    path=tests/$suite
    [ "$suite" = architecture ] && path=tests/test_architecture.py
    if [ ! -e "$path" ]; then
        closing+=("FAILED  $path: is missing")
        failed=1
        continue
    fi
    left=$((seconds - SECONDS))
    if [ "$left" -le 0 ]; then
        closing+=("FAILED  $path: not run, the $seconds seconds for all suites are spent")
        failed=1
        continue
    fi
    command=(.venv/bin/python -m pytest "$path" -rs --durations=5 -p no:cacheprovider)
    [[ $PARALLEL == *" $suite "* ]] && command+=(-n 2)
    # A long random test is not stuck.
    [ "${CELLWALL_SOAK:-}" = 1 ] && command+=(-o faulthandler_timeout=1800)
    [[ $PRIVILEGED == *" $suite "* ]] && command=("${as_root[@]}" "${command[@]}")
    printf '\n== %s ==\n' "$path"
    # SIGINT lets pytest take down its namespaces; the kill is for what does not listen.
    timeout --signal=INT --kill-after=30 "$left" "${command[@]}" </dev/null 2>&1 | tee "$output"
    status=${PIPESTATUS[0]}
    case $status in
        0) word=passed why= ;;
        5) word=FAILED why="no test was collected; " ;;
        124 | 137) word=FAILED why="stopped when the $seconds seconds were spent; " ;;
        *) word=FAILED why= ;;
    esac
    [ "$status" -eq 0 ] || failed=1
    closing+=("$word  $path: $why$(tail -n 1 "$output")")
done

printf '\n== suites, %d s ==\n' "$SECONDS"
printf '%s\n' "${closing[@]}"
exit "$failed"
