#!/usr/bin/env bash
# Build libwebp's decoder as a static library, for wheels that contain it: WEBP_PREFIX=PREFIX for setup.py.
#
#   scripts/libwebp.sh PREFIX
#
# It runs before all builds in the images of cibuildwheel (pyproject.toml), and in scripts/build_wheels.sh. It needs a C
# compiler and cmake.
#
#   WEBP_SOURCE a folder with libwebp's source, instead of the download
set -euo pipefail

version=1.6.0
sha256=e4ab7009bf0629fd11982d4c2aa83964cf244cffba7347ecd39019a9e38c4564
url=https://storage.googleapis.com/downloads.webmproject.org/releases/webp/libwebp-$version.tar.gz

prefix=${1:?usage: scripts/libwebp.sh PREFIX}
if [ -e "$prefix/lib/libwebpdecoder.a" ]; then exit; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

source=${WEBP_SOURCE:-}
if [ -z "$source" ]; then
    curl --fail --location --silent --show-error --retry 3 --output "$work/webp.tar.gz" "$url"
    if command -v sha256sum >/dev/null; then sum=sha256sum; else sum="shasum --algorithm 256"; fi
    echo "$sha256  $work/webp.tar.gz" | $sum --check >"$work/sum.log" || { cat "$work/sum.log" >&2; exit 1; }
    tar xzf "$work/webp.tar.gz" -C "$work"
    source=$work/libwebp-$version
fi
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
{
    cmake -S "$source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=1 \
        -DBUILD_SHARED_LIBS=0 -DWEBP_BUILD_ANIM_UTILS=0 -DWEBP_BUILD_CWEBP=0 -DWEBP_BUILD_DWEBP=0 \
        -DWEBP_BUILD_GIF2WEBP=0 -DWEBP_BUILD_IMG2WEBP=0 -DWEBP_BUILD_VWEBP=0 -DWEBP_BUILD_WEBPINFO=0 \
        -DWEBP_BUILD_WEBPMUX=0 -DWEBP_BUILD_EXTRAS=0 -DCMAKE_POLICY_VERSION_MINIMUM=3.5
    cmake --build "$work/build" --parallel "$cores" --target webpdecoder
} >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
mkdir -p "$prefix/lib" "$prefix/include/webp"
cp "$(find "$work/build" -name libwebpdecoder.a | head -n 1)" "$prefix/lib/"
cp "$source/src/webp/decode.h" "$source/src/webp/types.h" "$prefix/include/webp/"
