#!/usr/bin/env python3
"""What a release needs to agree: the version, the changelog, the citation, and the golden datasets.

    python scripts/release.py check VERSION     exit 1 and say what is missing
    python scripts/release.py notes VERSION     print the changelog's section of this version

It needs Python alone, so that a workflow can run it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """Version -> (date, text) of each section of the changelog; the date is empty for "Unreleased"."""
    parts = re.split(r"^## \[([^\]]+)\](?: - (\S+))?\n", changelog, flags=re.MULTILINE)[1:]
    texts = (re.sub(r"^\[[^\]]+\]: .*$", "", text, flags=re.MULTILINE).strip() for text in parts[2::3])
    return {name: (date or "", text) for name, date, text in zip(parts[::3], parts[1::3], texts, strict=True)}


def missing(version: str, root: Path = ROOT) -> list[str]:
    """What speaks against a release of this version."""

    def read(name: str) -> str:
        return (root / name).read_text("utf-8")

    found = []
    if f'__version__ = "{version}"\n' not in read("shardkit/version.py"):
        found.append(f"shardkit/version.py does not have the version {version}")
    date, text = sections(read("CHANGELOG.md")).get(version, ("", ""))
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date) or not text:
        found.append(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with text")
    if f"\nversion: {version}\n" not in read("CITATION.cff"):
        found.append(f"CITATION.cff does not have the version {version}")
    if not (root / "tests" / "fixtures" / "datasets" / version).is_dir():
        found.append(f"tests/fixtures/datasets/{version} is missing: python scripts/golden_datasets.py")
    return found


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check", version]:
            found = missing(version)
            print("\n".join(found) or f"{version} can be released")
            return 1 if found else 0
        case ["notes", version]:
            print(sections((ROOT / "CHANGELOG.md").read_text("utf-8"))[version][1])
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
