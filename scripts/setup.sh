#!/usr/bin/env bash
# Makes .venv with everything that Cellwall's own targets need; does nothing when that is done already.
# For a fresh Debian 12 with Python 3.11, make and git; elsewhere it says what is missing.
#   scripts/setup.sh          the locked requirements, and Cellwall itself, editable
#   scripts/setup.sh --root   the same, and refuse if the kernel's packet filter cannot be changed
#   scripts/setup.sh --docs   the same, and the site generator
#   scripts/setup.sh --bench  the same, and the rivals that the benches measure, where they can be had
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin" # where nft and ip live, and a user's PATH does not reach
LOG=.venv-setup.log
VENV=.venv
PYTHON=$VENV/bin/python
pip=("$PYTHON" -m pip install --disable-pip-version-check --no-input)
began=$(date +%s)
: >"$LOG"

die() {
    printf 'cellwall: %s\n' "$*" >&2
    exit 1
}

# step TITLE COMMAND...: one line for the step, with its seconds; the end of its output when it fails.
step() {
    title=$1
    shift
    since=$(date +%s)
    printf '\n== %s: %s\n' "$title" "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while [ -t 1 ] && kill -0 "$pid" 2>/dev/null; do
        printf '\r  … %-52s %4d s ' "$title" "$(($(date +%s) - since))"
        sleep 0.5
    done
    failed=0
    wait "$pid" || failed=$?
    trap - INT TERM
    [ -t 1 ] && printf '\r'
    if [ "$failed" -eq 0 ]; then
        printf '  ✓ %-52s %4d s \n' "$title" "$(($(date +%s) - since))"
    else
        printf '  ✗ %-52s %4d s \n' "$title" "$(($(date +%s) - since))"
        tail -n 20 "$LOG" | sed 's/^/    /' >&2
        die "\`$title\` failed; the whole log is in $LOG"
    fi
}

if [ "$(id -u)" -eq 0 ]; then
    as_root=''
elif command -v sudo >/dev/null; then
    as_root='sudo'
else
    as_root='none'
fi

need_root() { # need_root REASON: become able to run $as_root without a question in the middle of a step
    [ "$as_root" != none ] || die "$1 needs root: run as root, or install sudo"
    [ -z "$as_root" ] || sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; } ||
        die "$1 needs root, and sudo asks for a password that nobody can type here: run as root"
}

find_python() {
    for name in python3.11 python3 python3.12 python3.13 python3.14; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

install_packages() { # install_packages NAME...: with apt, after one look at what is there
    need_root "installing $*"
    step "look up packages" $as_root apt-get update
    step "install $*" $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

want_root=no
want_docs=no
want_bench=no
want_packaging=no
for argument in "$@"; do
    case $argument in
        --root) want_root=yes ;;
        --docs) want_docs=yes ;;
        --bench) want_bench=yes ;;
        --packaging) want_root=yes && want_packaging=yes ;;
        *) die "unknown option \`$argument\`; wanted --root, --docs, --bench or --packaging" ;;
    esac
done
[ "$(uname -s)" = Linux ] || die "this is $(uname -s), and Cellwall enforces in the kernel of Linux"
[ $want_root = no ] || need_root "changing the packet filter of the lab's network namespaces"

base=$(find_python) || die "no Python 3.11 or newer found; install one, and run this again"
missing=''
command -v nft >/dev/null || missing="$missing nftables"
command -v ip >/dev/null || missing="$missing iproute2"
command -v sysctl >/dev/null || missing="$missing procps"
# Other firewalls, whose rules are imported: the tests load them, to see that both mean the same.
if [ $want_root = yes ]; then
    command -v iptables-restore >/dev/null || missing="$missing iptables"
    command -v ipset >/dev/null || missing="$missing ipset"
    # The other database of the state; the tests start servers of their own, and need none that runs.
    set -- /usr/lib/postgresql/*/bin/initdb
    [ -x "$1" ] || missing="$missing postgresql"
fi
# Whole machines, on which packages and roles are tried.
if [ $want_packaging = yes ]; then
    for tool in debootstrap systemd-nspawn:systemd-container buildah; do
        command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
    done
fi
# Debian splits venv from Python, and what is missing then is ensurepip.
"$base" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || die "missing:$missing; install them with your system's package manager"
    # shellcheck disable=SC2086 # a list of words
    install_packages $missing
    "$base" -c 'import venv, ensurepip' 2>/dev/null || die "\`$base -m venv\` cannot work; install its venv package"
fi

# The stamp names what was installed and from where: a copied or moved tree is set up anew.
stamp() { cat requirements/"$1".txt pyproject.toml scripts/setup.sh | { pwd && cat; } | sha256sum | cut -d' ' -f1; }
done_already() { [ -x $PYTHON ] && [ "$(cat "$VENV/stamp-$1" 2>/dev/null)" = "$(stamp "$1")" ]; }

# Wheels only: a source package would fetch what it is built with, and no lock covers that.
if ! done_already dev; then
    rm -f $VENV/stamp-*
    if ! { $PYTHON -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $PYTHON -m pip --version; } >/dev/null 2>&1; then
        step "make $VENV with $("$base" --version)" "$base" -m venv --clear $VENV
    fi
    step "install the locked requirements" \
        "${pip[@]}" --require-hashes --only-binary :all: -r requirements/dev.txt
    step "install Cellwall, editable" \
        "${pip[@]}" --no-deps --no-build-isolation --editable .
    stamp dev >$VENV/stamp-dev
    printf '  ✓ ready after %d s\n' "$(($(date +%s) - began))"
fi
# A real OpenID provider, to which the tests sign in; where there is no npm they say that they left it out.
if [ $want_root = yes ] && command -v npm >/dev/null && ! cmp -s tests/contract/oidc/package-lock.json build/oidc/installed; then
    mkdir -p build/oidc
    cp tests/contract/oidc/package.json tests/contract/oidc/package-lock.json build/oidc/
    # In a subshell, and without it the tests go on: a registry may be out of reach.
    if (step "install the tests' identity provider" npm ci --prefix build/oidc --ignore-scripts --no-audit --no-fund); then
        cp build/oidc/package-lock.json build/oidc/installed
    else
        echo 'cellwall: the tests go on without an identity provider' >&2
    fi
fi
if [ $want_docs = yes ] && ! done_already docs; then
    step "install the site generator" \
        "${pip[@]}" --require-hashes --only-binary :all: -r requirements/docs.txt
    stamp docs >$VENV/stamp-docs
fi
if [ $want_bench = yes ] && ! done_already bench; then
    # In a subshell: a bench whose rival is not to be had says so, and measures ours alone.
    if (step "install the benches' rivals" "${pip[@]}" --require-hashes --only-binary :all: -r requirements/bench.txt); then
        stamp bench >$VENV/stamp-bench
    else
        echo 'cellwall: the benches go on without their rivals' >&2
    fi
fi
if [ $want_packaging = yes ] && ! done_already packaging; then
    step "install what plays the roles" \
        "${pip[@]}" --require-hashes --only-binary :all: -r requirements/packaging.txt
    stamp packaging >$VENV/stamp-packaging
fi
rm -f "$LOG"
