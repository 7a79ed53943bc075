#!/usr/bin/env bash
# Test the installed shardkit, not the one in the source tree: pack, read, verify, the C parts, and old datasets.
#
#   scripts/test_wheel.sh PROJECT          PROJECT: the folder of the source tree, whose tests are used
#
#   SHARDKIT_PARTS=none: the C parts are not expected
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$1/tests" "$1/pyproject.toml" "$1/SECURITY.md" "$1/CITATION.cff" "$1/docs" "$work/"
cd "$work"

python - "$1" <<'PYTHON'
import os
import sys
from pathlib import Path

import shardkit
from shardkit.native import load

assert Path(sys.argv[1]).resolve() not in Path(shardkit.__file__).parents, "the source tree is tested, not the wheel"
parts = sorted(path.stem for path in Path(sys.argv[1], "shardkit", "native").glob("*.c"))
reasons = {part: load(part)[1] for part in parts}
print(shardkit.__version__, shardkit.__file__, reasons)
if os.environ.get("SHARDKIT_PARTS") != "none":
    assert parts and not any(reasons.values()), reasons
PYTHON
shardkit --version
shardkit demo
files=(tests/test_checksums.py tests/test_trust.py tests/formats/test_format.py)
if [ "${SHARDKIT_PARTS:-}" != none ]; then
    files+=(tests/images/test_fused.py tests/images/test_png_decoder.py tests/images/test_webp_decoder.py tests/formats/tar/test_fast_write.py)
fi
python -m pytest -q -p no:cacheprovider "${files[@]}"
