"""`shardkit pack` as a whole command, of archives and lists of a tree, against the tree itself.

    python benchmarks/sources.py data/cifar10/train --repeat 11

The archives and lists are made first, in a scratch folder: a tar (by GNU tar) and a zip without compression of the
tree, and its files with their classes as CSV and Parquet. All are packed in turn, each into an empty folder after a
sync of the disk. The table has medians of wall and processor time, and of their ratios to the tree's in the same round.
On a busy machine only processor time means something.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import tempfile
import zipfile

from command import in_turns, pack, print_table


def make_sources(tree: str, folder: str) -> dict[str, str]:
    """Archives and lists of a tree: their names in the table -> their paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    places = {kind: os.path.join(folder, f"x.{kind}") for kind in ("tar", "zip", "csv", "parquet")}
    files = [
        os.path.relpath(os.path.join(top, name), tree)
        for top, _, names in sorted(os.walk(tree))
        for name in sorted(names)
    ]
    subprocess.run(["tar", "cf", places["tar"], "-C", tree, "."], check=True)
    with zipfile.ZipFile(places["zip"], "w", strict_timestamps=False) as zipped:
        for name in files:
            zipped.write(os.path.join(tree, name), name)
    paths = [os.path.abspath(os.path.join(tree, name)) for name in files]
    labels = [name.split("/")[0] for name in files]
    with open(places["csv"], "w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([("path", "label"), *zip(paths, labels, strict=True)])
    pq.write_table(pa.table({"path": paths, "label": labels}), places["parquet"])
    return {"tree": tree, **places}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: that of temporary files)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        ways = {name: pack(source) for name, source in make_sources(options.tree, folder).items()}
        print_table(in_turns(ways, options.repeat, folder), "x tree", memory=False)


if __name__ == "__main__":
    main()
