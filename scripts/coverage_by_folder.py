"""Report line and branch coverage per folder of shardkit: `python scripts/coverage_by_folder.py [FOLDER]`.

Reads the data of `coverage run`. Exits with 1 if the total coverage is below the floor in pyproject.toml.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parent.parent


def summaries(folder: str) -> dict[str, dict[str, int]]:
    """{file: its counts} of all files in the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        target = f"{scratch}/coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", target, "--fail-under=0"]
        subprocess.run([*command, "--include", f"{folder}/*"], check=True, cwd=ROOT)
        files = json.loads(Path(target).read_text("utf-8"))["files"]
    return {name: file["summary"] for name, file in files.items()}


def percent(counts: Counter[str]) -> float:
    """Percentage of statements and branches together, like coverage's."""
    total = counts["num_statements"] + counts["num_branches"]
    return 100 * (counts["covered_lines"] + counts["covered_branches"]) / total if total else 100.0


def by_folder(files: dict[str, dict[str, int]]) -> dict[str, Counter[str]]:
    """The sums of each folder's own files."""
    folders: dict[str, Counter[str]] = {}
    for name, summary in files.items():
        counts = folders.setdefault(PurePath(name).parent.as_posix(), Counter())
        counts.update({key: value for key, value in summary.items() if isinstance(value, int)})
    return folders


def main() -> int:
    """Print the table; return the exit code."""
    folder = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "shardkit"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    floor = float(settings["tool"]["coverage"]["report"]["fail_under"])
    folders = by_folder(summaries(folder))
    total = sum(folders.values(), Counter[str]())
    print("covered  lines missing  branches missing  folder")
    for name, counts in [*sorted(folders.items()), ("together", total)]:
        low = "  below the floor" if percent(counts) < floor else ""
        missing = f"{counts['missing_lines']:13}  {counts['missing_branches']:16}"
        print(f"{percent(counts):6.1f}%  {missing}  {name}{low}")
    return int(percent(total) < floor)


if __name__ == "__main__":
    sys.exit(main())
