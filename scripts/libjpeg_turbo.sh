#!/usr/bin/env bash
# Build libjpeg-turbo as a static library, for wheels that contain it: JPEG_PREFIX=PREFIX for setup.py.
#
#   scripts/libjpeg_turbo.sh PREFIX
#
# It runs before all builds in the images of cibuildwheel (pyproject.toml), and in scripts/build_wheels.sh. It needs a C
# compiler and cmake, and on x86 nasm, which it installs where it can: without it there is no SIMD code, and decoding
# takes twice as long, so the build stops.
#
#   JPEG_SOURCE a folder with libjpeg-turbo's source, instead of the download
set -euo pipefail

version=3.1.3
sha256=075920b826834ac4ddf97661cc73491047855859affd671d52079c6867c1c6c0
url=https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download/$version/libjpeg-turbo-$version.tar.gz

prefix=${1:?usage: scripts/libjpeg_turbo.sh PREFIX}
if [ -e "$prefix/lib/libjpeg.a" ]; then exit; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

source=${JPEG_SOURCE:-}
if [ -z "$source" ]; then
    curl --fail --location --silent --show-error --retry 3 --output "$work/jpeg.tar.gz" "$url"
    if command -v sha256sum >/dev/null; then sum=sha256sum; else sum="shasum --algorithm 256"; fi
    echo "$sha256  $work/jpeg.tar.gz" | $sum --check >"$work/sum.log" || { cat "$work/sum.log" >&2; exit 1; }
    tar xzf "$work/jpeg.tar.gz" -C "$work"
    source=$work/libjpeg-turbo-$version
fi
case $(uname -m) in
x86_64 | i686)
    if ! command -v nasm >/dev/null; then
        { dnf install -y nasm || apk add nasm || apt-get install -y nasm || brew install nasm; } >"$work/nasm.log" 2>&1 ||
            { cat "$work/nasm.log" >&2; exit 1; }
    fi
    ;;
esac
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
{
    cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=1 \
        -DENABLE_SHARED=0 -DWITH_TURBOJPEG=0 -DREQUIRE_SIMD=1 -DCMAKE_POLICY_VERSION_MINIMUM=3.5 \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR="$prefix/lib"
    cmake --build "$work/build" --parallel "$cores"
    cmake --install "$work/build"
} >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
