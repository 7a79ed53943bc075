"""The entry point of the command line: `shardkit`, and `python -m shardkit`.

A packing begins to list its tree before anything else is loaded.
"""

from __future__ import annotations

import sys

NOTHING_IS_READ = frozenset(("-h", "--help", "--dry-run"))


def tree_of(arguments: list[str]) -> str | None:
    """The first argument of `shardkit pack TREE DEST …`, which is nearly always a tree; None for another form."""
    if len(arguments) < 3 or arguments[0] != "pack" or not NOTHING_IS_READ.isdisjoint(arguments):
        return None
    return None if arguments[1].startswith("-") else arguments[1]


def main() -> None:
    """Run the command line on the arguments of the process, and exit."""
    if tree := tree_of(sys.argv[1:]):
        from shardkit.sources.tree.early import begin

        begin(tree)
    from shardkit.cli.main import main

    main()


if __name__ == "__main__":
    main()
