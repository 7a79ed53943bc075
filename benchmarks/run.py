"""Compare shardkit with its peers: `python benchmarks/run.py MODE --data DIR` (see benchmarks/README.md)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import contestants as _contestants  # noqa: F401  fills the table
import report
from harness import TABLE, Case, Contestant, read_file
from prepare import Tree, drop_pages, fresh_dest, input_files, prepare, trees
from process import Answer, ContestantError, ask, watch
from report import Contest


def entrants(options: argparse.Namespace, mode: str, case: Case, notes: dict[str, str]) -> Iterator[Contestant]:
    """Yield the contestants that can take part; note why the others cannot."""
    for one in TABLE:
        if mode not in one.modes or (one.variants and case.variant not in one.variants):
            continue
        if options.only and one.name != options.against and not any(o in one.name for o in options.only):
            continue
        version = one.version()
        if version is None:
            notes[one.name] = "not installed"
        elif one.reads and not prepare(case, one.reads):
            notes[one.name] = f"no {one.reads} shards"
        else:
            notes[one.name] = version
            yield one


def compete(options: argparse.Namespace, mode: str, case: Case, tree: Tree, unit: str = "samples/s") -> Contest:
    """Run all contestants in turn, A B C A B C …, for the given number of rounds."""
    contest = Contest(f"{mode}: {' '.join(filter(None, (case.tree, case.variant)))}", unit)
    takers = list(entrants(options, mode, case, contest.notes))
    if mode != "cold":
        warm({path for one in takers for path in input_files(case, one)})
    for number in range(options.repeat):
        for one in list(takers):
            progress(f"{contest.title}, round {number + 1} of {options.repeat}: {one.name}")
            if mode == "pack":
                fresh_dest(case)
            elif mode == "cold":
                drop_pages(input_files(case, one))
            try:
                answer = ask(mode, one.name, case)
            except ContestantError as error:
                contest.notes[one.name] += f" failed: {error}"
                takers.remove(one)
                continue
            contest.results.setdefault(one.name, []).append(figure(mode, answer, tree))
            contest.notes[one.name] = (one.version() or "") + remark(one, answer, tree)
    shutil.rmtree(case.dest, ignore_errors=True)
    progress("")
    return contest


def figure(mode: str, answer: Answer, tree: Tree) -> float:
    """Samples/s, or the seconds to the first batch."""
    if mode == "start":
        return float(answer["wall_seconds"])
    return float(answer.get("timed", tree.samples) / answer["seconds"])


def remark(one: Contestant, answer: Answer, tree: Tree) -> str:
    """Note if a contestant did not yield the content of the tree, and the dtype of its batches if it is unusual."""
    said = ""
    samples, total = answer.get("samples"), answer.get("bytes")
    if one.counts and samples not in (None, tree.samples):
        said += f" ({samples:,} of {tree.samples:,} samples)"
    elif one.counts and total not in (None, tree.bytes):
        said += f" ({total:,} of {tree.bytes:,} bytes)"
    if "uint8" not in answer.get("dtype", "uint8"):
        said += f" ({answer['dtype']})"
    return said


def warm(paths: set[str]) -> None:
    """Bring the files into the page cache."""
    for path in paths:
        read_file(path)


def progress(text: str) -> None:
    """Overwrite one line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def run_pack(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """Class tree to shards; warm page cache."""
    yield show(options, compete(options, "pack", tree.case, tree))


def run_raw(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """Undecoded samples, shuffled, one process; warm page cache."""
    yield show(options, compete(options, "raw", tree.case, tree))


def run_batches(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """Training batches; warm page cache."""
    for variant in tree.variants:
        yield show(options, compete(options, "batches", replace(tree.case, variant=variant), tree))


def run_start(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """From the start of the process to its first batch."""
    case = replace(tree.case, variant=tree.variants[0])
    yield show(options, compete(options, "start", case, tree, unit="s"))


def run_cold(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """One epoch of undecoded samples, after evicting the files from the page cache."""
    yield show(options, compete(options, "cold", tree.case, tree))


def run_memory(options: argparse.Namespace, tree: Tree) -> Iterator[str]:
    """Peak USS in each of three epochs, and while packing."""
    for mode in ("memory pack", "memory raw", "memory batches"):
        case = replace(tree.case, variant=tree.variants[0] if mode == "memory batches" else "")
        notes: dict[str, str] = {}
        rows: list[report.Row] = []
        for one in entrants(options, mode, case, notes):
            progress(f"{mode}: {case.tree}: {one.name}")
            fresh_dest(case)
            try:
                peaks = watch(mode, one.name, case)
            except ContestantError as error:
                notes[one.name] += f" failed: {error}"
                continue
            rows.append(report.memory_row(one.name, peaks, notes.pop(one.name)))
        rows += [(name, "", "", "", "", note) for name, note in notes.items()]
        progress("")
        head = ("contestant", "largest process MB", "all processes MB", "each epoch MB", "last / first", "note")
        yield f"{mode}: {case.tree}\n\n" + report.table(head, rows, markdown=options.markdown)


def show(options: argparse.Namespace, contest: Contest) -> str:
    """The table of a contest; its figures go to the JSON file."""
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            print(json.dumps(asdict(contest), ensure_ascii=False), file=file)
    return contest.title + "\n\n" + report.rates(contest, against=options.against, markdown=options.markdown)


RUNNERS: dict[str, Callable[[argparse.Namespace, Tree], Iterator[str]]] = {
    "pack": run_pack,
    "raw": run_raw,
    "batches": run_batches,
    "start": run_start,
    "memory": run_memory,
    "cold": run_cold,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=[*RUNNERS, "all"])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of class trees NAME/train")
    parser.add_argument("--tree", metavar="NAME", help="only this tree")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="rounds (default 5)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only contestants with one of these in their name")
    parser.add_argument("--against", default="shardkit", metavar="NAME", help="whom the ratios compare (shardkit)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep the shards that are read here, and use them")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append every figure to this file, a line a table")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the modes on the trees."""
    options = parse()
    modes = list(RUNNERS) if options.mode == "all" else [options.mode]
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as temporary:
        scratch = options.scratch or Path(temporary)
        found = list(trees(options.data, scratch, options.tree))
        if not found:
            raise SystemExit(f"{options.data}: there is no class tree NAME/train in it")
        print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}")
        for mode in modes:
            for tree in found:
                for text in RUNNERS[mode](options, tree):
                    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
