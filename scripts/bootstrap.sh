#!/bin/sh
# Installs what the build needs and unpacks the library that the system does not package.
# Debian 12 and 13, Ubuntu 24.04; as root, or as a user who may sudo without a password. Asks
# nothing, and does nothing when everything is there.
#   scripts/bootstrap.sh [--test] [--lint]
#       --test: also what the tests need, Python packages in build/venv among it
#       --lint: also the analysers and fuzzers that CI runs
set -eu
cd "$(dirname "$0")/.."
. scripts/step.sh

# set   system        packages
table='
build   *             gcc libc6-dev make cmake pkgconf python3-venv libpcre2-dev libutf8proc-dev
build   *             libinih-dev libedit-dev libxxhash-dev libcmocka-dev ca-certificates
build   debian-13     libyyjson-dev
lint    *             cppcheck
lint    debian-12     clang-14 libclang-rt-14-dev llvm-14 clang-tidy-14 clang-format-14
lint    debian-13     clang-19 libclang-rt-19-dev llvm-19 clang-tidy-19
lint    ubuntu-24.04  clang-18 libclang-rt-18-dev llvm-18 clang-tidy-18 clang-format-14
'

want_test=""
sets=" build "
for arg in "$@"; do
    case $arg in
    --test) want_test=yes ;;
    --lint) sets="$sets lint " ;;
    *) say "usage: scripts/bootstrap.sh [--test] [--lint]"; exit 1 ;;
    esac
done

system=$(. /etc/os-release 2>/dev/null && echo "${ID:-unknown}-${VERSION_ID:-}") || system=unknown

packages_wanted() {
    echo "$table" | while read -r set on packages; do
        case $sets in *" ${set:-none} "*) ;; *) continue ;; esac
        case $on in '*' | "$system") echo "$packages" ;; esac
    done | tr '\n' ' '
}

packages_missing() {
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $wanted 2>/dev/null |
        sed -n 's/ installed$//p' | tr '\n' ' ')
    for package in $wanted; do
        case " $installed" in *" $package "*) ;; *) printf ' %s' "$package" ;; esac
    done
}

install_missing() {
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        as_root="sudo -n"
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            say "These packages are missing, and only root may install them:$missing"
            say "Run this script as root, or as a user who may sudo without a password, or have"
            say "    apt-get install --no-install-recommends$missing"
            say "run for you; then start again."
            exit 1
        fi
    fi
    apt="$as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y
         -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0"
    say "missing:$missing"
    step "reading the package lists" $apt update
    # shellcheck disable=SC2086
    step "installing packages" $apt install --no-install-recommends $missing
}

wanted=$(packages_wanted)
if ! command -v dpkg-query >/dev/null; then
    say "Not a Debian system: nothing is installed here. The build needs: $wanted"
else
    missing=$(packages_missing)
    [ -z "$missing" ] || install_missing
fi

# One environment for pip: it fetches the sources below, the model, and what the tests import.
if [ ! -x build/venv/bin/pip ]; then
    rm -rf build/venv build/venv.new
    mkdir -p build
    step "making a Python environment" python3 -m venv build/venv
fi
pip="build/venv/bin/pip -q --disable-pip-version-check --no-input"

# yyjson 0.10 from the source package of PyPI's yyjson, where the system has none as new.
if [ ! -f build/deps/yyjson/yyjson.c ] && ! pkg-config --atleast-version=0.10 yyjson; then
    mkdir -p build/deps/yyjson.new
    echo 'yyjson==4.0.6 --hash=sha256:fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c' \
        >build/deps/yyjson.txt
    step "getting the yyjson library's source" $pip download --no-deps --no-binary :all: \
        --require-hashes -d build/deps -r build/deps/yyjson.txt
    tar -xzf build/deps/yyjson-4.0.6.tar.gz -C build/deps
    find build/deps/yyjson-4.0.6 -name 'yyjson.[ch]' -exec cp {} build/deps/yyjson.new/ \;
    echo '26e50ca6a9a08d88b15ed7a47c144e29766216d134cad3a016de6163c5bb224d  build/deps/yyjson.new/yyjson.c
1d63b4e449f5b24116afab40b8f1b79f2703d5905aa8ab4ca46c97b7e513ba04  build/deps/yyjson.new/yyjson.h' |
        sha256sum -c --quiet
    rm -rf build/deps/yyjson build/deps/yyjson-4.0.6
    mv build/deps/yyjson.new build/deps/yyjson
fi

if [ -n "$want_test" ] && ! cmp -s scripts/requirements-test.txt build/venv/requirements-test.txt; then
    step "installing Python packages for the tests" $pip install --no-deps --only-binary :all: \
        -r scripts/requirements-test.txt
    cp scripts/requirements-test.txt build/venv/requirements-test.txt
fi
