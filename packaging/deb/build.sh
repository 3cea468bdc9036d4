#!/usr/bin/env bash
# Builds the Debian packages from this tree, with every Python package that they need inside: they install offline.
# Two builds of one commit are the same file, byte for byte.
#   packaging/deb/build.sh                     both packages into dist/
#   packaging/deb/build.sh --to DIR agent      one of `agent` and `controller`, elsewhere
#   packaging/deb/build.sh --version 0.2.0~rc1 as another version
#   TARGET_PYTHON=/usr/bin/python3             the interpreter of the release that it is for (this machine's)
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
umask 022

die() {
    printf 'cellwall: %s\n' "$*" >&2
    exit 1
}

version='' to=dist
packages=()
while [ $# -gt 0 ]; do
    case $1 in
        --version | --to)
            [ $# -gt 1 ] || die "\`$1\` wants a value"
            [ "$1" = --to ] && to=$2 || version=$2
            shift
            ;;
        agent | controller) packages+=("$1") ;;
        *) die "unknown argument \`$1\`; wanted --version, --to, \`agent\` or \`controller\`" ;;
    esac
    shift
done
[ ${#packages[@]} -gt 0 ] || packages=(agent controller)

python=${TARGET_PYTHON:-/usr/bin/python3}
own=.venv/bin/python
[ -x $own ] || die "there is no \`.venv\`; run \`make setup\` first"
command -v dpkg-deb >/dev/null || die "no \`dpkg-deb\`; packages are built on Debian"
abi=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=${abi%.*}.$((${abi#*.} + 1))
architecture=$(dpkg --print-architecture)
: "${version:=$("$own" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')}"
# PEP 440 has no tilde: 0.2.0~rc1 is 0.2.0rc1 there.
wheel_version=${version//\~/}
# The moment of the last commit, for every date in the packages.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$to"

echo "cellwall $version for Python $abi on $architecture" >&2
# The wheel comes from a copy, so that another version's number does not touch the tree.
mkdir "$work/source"
cp -R --preserve=mode pyproject.toml README.md LICENSE src "$work/source/"
find "$work/source" -name __pycache__ -prune -exec rm -rf {} +
sed -i "s/^version = .*/version = \"$wheel_version\"/" "$work/source/pyproject.toml"
sed -i "s/^__version__ = .*/__version__ = \"$wheel_version\"/" "$work/source/src/cellwall/__init__.py"
"$own" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work" "$work/source"

install_into() { # install_into FOLDER REQUIREMENTS: the locked packages and ours, without what differs between builds
    local pip=("$own" -m pip --python "$python" install --quiet --no-compile --upgrade --no-warn-script-location --root-user-action=ignore --target "$1")
    "${pip[@]}" --require-hashes --only-binary :all: -r "$2"
    "${pip[@]}" --no-deps "$work"/cellwall-*.whl
    rm -rf "${1:?}/bin" "$1"/*.dist-info/{RECORD,INSTALLER,REQUESTED,direct_url.json}
}

complete() { # complete FOLDER ROOM...: every module of these rooms must find what it imports in the folder
    PYTHONPATH=$1 "$python" -SB - "${@:2}" <<'END' || die "a package that is imported is not in the lock: see above"
import importlib, pkgutil, sys
for room in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
        importlib.import_module(module.name)
END
}

precompile() { # precompile FOLDER AT LEVEL...: bytecode that needs no look at the source, as no start may write here
    local folder=$1 at=$2 levels=()
    shift 2
    for level in "$@"; do levels+=(-o "$level"); done
    # A package may hold a file for other versions of Python, which is then not compiled.
    "$python" -m compileall -q --invalidation-mode unchecked-hash "${levels[@]}" -s "$folder" -p "$at" "$folder" || true
}

unit() { # unit ROOT NAME PACKAGE: a unit, which starts the package's own program
    install -D -m 644 "packaging/systemd/$2" "$1/lib/systemd/system/$2"
    sed -i "s,/usr/bin/cellwall,/usr/lib/cellwall-$3/cellwall,g" "$1/lib/systemd/system/$2"
}

# The least glibc that a compiled package asks for, by the names of the versions that it is bound to.
least_glibc() { find "$1" -name '*.so*' -exec grep -ahoE 'GLIBC_2\.[0-9]+' {} + | sort -Vu | tail -n 1 | cut -d_ -f2; }

build() { # build NAME: complete the tree `$work/NAME` and pack it
    local name=$1 root=$work/$1 from=packaging/deb/$1 file
    install -D -m 644 LICENSE "$root/usr/share/doc/cellwall-$name/copyright"
    install -D -m 644 "$from/default" "$root/etc/default/cellwall-$name"
    install -d "$root/DEBIAN"
    sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@PYTHON@/$abi/; s/@PYTHON_NEXT@/$next/" \
        -e "s/@GLIBC@/$(least_glibc "$root")/; s/@KIB@/$(du -sk "$root" | cut -f1)/" "$from/control" >"$root/DEBIAN/control"
    echo "/etc/default/cellwall-$name" >"$root/DEBIAN/conffiles"
    for file in preinst postinst prerm postrm templates; do
        [ ! -e "$from/$file" ] || install -m "$([ $file = templates ] && echo 644 || echo 755)" "$from/$file" "$root/DEBIAN/"
    done
    (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    chmod -R u=rwX,go=rX "$root"
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    # One thread: the bytes that several make depend on how many there are.
    dpkg-deb --root-owner-group --threads-max=1 "${compression[@]}" --build "$root" "$to" >&2
}

for name in "${packages[@]}"; do
    root=$work/$name
    home=$root/usr/lib/cellwall-$name
    mkdir -p "$home"
    case $name in
        agent)
            install_into "$home/packages" requirements/agent.txt
            complete "$home/packages" cellwall.agent
            # Without docstrings alone: the agent runs no other way.
            precompile "$home/packages" "/usr/lib/cellwall-agent/packages" 0
            install -m 755 packaging/deb/agent/cellwall "$home/cellwall"
            unit "$root" cellwall-agent.service agent
            unit "$root" cellwall-load.service agent
            compression=(-Zxz -z6)
            ;;
        controller)
            # A virtual environment by hand: the flow store starts Python again, and must find the same packages.
            install -d "$home/bin"
            ln -s /usr/bin/python3 "$home/bin/python3"
            printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$home/pyvenv.cfg"
            install_into "$home/lib/python$abi/site-packages" requirements/controller.txt
            complete "$home/lib/python$abi/site-packages" cellwall.controller cellwall.cli
            precompile "$home/lib" "/usr/lib/cellwall-controller/lib" 0
            install -m 755 packaging/deb/controller/cellwall "$home/cellwall"
            for file in packaging/systemd/cellwall-controller*; do unit "$root" "${file##*/}" controller; done
            # 600 MB of programs: xz would take minutes for a fifth less.
            compression=(-Zzstd -z9)
            ;;
    esac
    build "$name"
done
