#!/bin/sh
# Installs what the build needs and unpacks the libraries that the system does not package.
# Debian 12 and 13, Ubuntu 24.04. As root, or as a user who may sudo without a password.
set -eu
cd "$(dirname "$0")/.."

packages="gcc libc6-dev make cmake pkgconf python3-venv libpcre2-dev libutf8proc-dev libinih-dev
libedit-dev libxxhash-dev libcmocka-dev"

missing=""
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    echo "installing:$missing" >&2
    $as_root apt-get -q update </dev/null >&2
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install \
        --no-install-recommends $missing </dev/null >&2
fi

# yyjson 0.10 from the source package of PyPI's yyjson, where Debian has no package.
if ! pkg-config --exists yyjson && [ ! -f build/deps/yyjson/yyjson.c ]; then
    mkdir -p build/deps/yyjson
    python3 -m venv build/deps/venv
    cat >build/deps/yyjson.txt <<'R'
yyjson==4.0.6 --hash=sha256:fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c
R
    build/deps/venv/bin/pip -q download --no-deps --no-binary :all: --require-hashes \
        -d build/deps -r build/deps/yyjson.txt
    tar -xzf build/deps/yyjson-4.0.6.tar.gz -C build/deps
    find build/deps/yyjson-4.0.6 -name 'yyjson.[ch]' -exec cp {} build/deps/yyjson/ \;
fi
