#!/usr/bin/env python3
"""Change the code in small ways that alter its behaviour, and report changes that the tests do not notice.

    python scripts/mutate.py trace [PATH ...]             once: which test runs which line, and how long it takes
    python scripts/mutate.py run --count 400 --seed 1      try that many changes; list the unnoticed ones
    python scripts/mutate.py run --only FILE:LINE          try all changes of one line

A change replaces a comparison, moves a bound by one, negates a condition, swaps `and` and `or`, or removes a call. It
is made in a copy of the project, and the tests that run its line are run there, fastest first, until one fails. A
change is *noticed* when a test fails or hangs. `--judged FILE` names changes that were reviewed and found to alter
nothing that a caller can see; each line is `FILE:LINE:COLUMN: KIND: reason`.

Needs: pip install pytest-cov, in addition to the project's `test` extra. Works on systems that can fork.
"""

from __future__ import annotations

import argparse
import ast
import bisect
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "build" / "mutation"
FOLDERS = ("images", "formats", "storage", "shards", "sources", "packing", "reading", "adapters", "tools")

SWAPS: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*",
}  # fmt: skip
SIGNS: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//",
}  # fmt: skip
QUIET = ("log", "logger", "warnings")
"""Objects whose calls are not removed: what they write is no behaviour that a test need pin."""


FIRST = 20
"""Tests that are tried before the others: most changes fail one of them, and slow modules need not be loaded."""

TIMED_OUT = re.compile(rb"Timeout \(>|\+ Timeout \+")
"""What pytest-timeout writes. On a busy machine such a change is to be tried again alone."""

QUIETLY = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""hypothesis is loaded before pytest, so its assertions are not rewritten; they are not ours."""


@dataclass(frozen=True)
class Change:
    """One change: the text from `start` to `stop` (characters of the file) becomes `new`."""

    file: str
    line: int
    column: int
    start: int
    stop: int
    old: str
    new: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.kind}: {self.old!r} -> {self.new!r}"


class Finder(ast.NodeVisitor):
    """Collects the possible changes of one file. Messages, annotations and constants in capitals are not changed."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = source.splitlines()
        self.changes: list[Change] = []
        self.bounds = 0

    def within(self, node: ast.AST) -> None:
        """Visit the children of `node`, in which a number is a bound: of a comparison, a slice, a range or a sum."""
        self.bounds += 1
        self.generic_visit(node)
        self.bounds -= 1

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.within(node)

    def at(self, line: int, column: int) -> int:
        """The character offset of (line, UTF-8 column)."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def add(self, node: ast.expr | ast.stmt, start: int, stop: int, new: str, kind: str) -> None:
        old = self.source[start:stop]
        self.changes.append(Change(self.file, node.lineno, node.col_offset, start, stop, old, new, kind))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def between(self, left: ast.expr, right: ast.expr, sign: str, node: ast.expr, new: str, kind: str) -> None:
        """Replace the operator between two operands."""
        first, last = self.span(left)[1], self.span(right)[0]
        place = self.source.find(sign, first, last)
        if place >= 0 and "#" not in self.source[first:last]:
            self.add(node, place, place + len(sign), new, kind)

    def visit_Raise(self, node: ast.Raise) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None: ...

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in ("__repr__", "__str__"):
            for child in [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None], *node.body]:
                self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for child in node.body:  # not its decorators, whose flags (frozen, slots) change nothing that a caller sees
            self.visit(child)

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if not (isinstance(target, ast.Name) and target.id.strip("_").isupper()):
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            start, stop = self.span(node.test)
            self.add(node.test, start, stop, f"not ({self.source[start:stop]})", "negate")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, sign, right in zip(operands, node.ops, operands[1:], strict=False):
            if type(sign) in SWAPS:
                self.between(left, right, SIGNS[type(sign)], node, SWAPS[type(sign)], "compare")
        self.within(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        texts = any(isinstance(x, ast.JoinedStr) or (isinstance(x, ast.Constant) and isinstance(x.value, (str, bytes)))
                    for x in ast.walk(node))  # fmt: skip
        if type(node.op) in SWAPS and not texts:
            self.between(node.left, node.right, SIGNS[type(node.op)], node, SWAPS[type(node.op)], "arithmetic")
        self.within(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, old, node, new, "and/or")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, _ = self.span(node)
            self.add(node, start, self.span(node.operand)[0], "", "negate")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        start, stop = self.span(node)
        if isinstance(node.value, bool):
            self.add(node, start, stop, str(not node.value), "flag")
        elif isinstance(node.value, int) and self.bounds:
            self.add(node, start, stop, str(node.value + 1), "bound")

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Call):
            return
        root: ast.expr = node.value.func
        while isinstance(root, ast.Attribute):
            root = root.value
        name = ast.unparse(node.value.func)
        if not (isinstance(root, ast.Name) and root.id in QUIET) and not name.endswith(("__init__", "progress")):
            start, stop = self.span(node)
            self.add(node, start, stop, "...", "call removed")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max", "any", "all"):
            start, stop = self.span(node.func)
            other = {"min": "max", "max": "min", "any": "all", "all": "any"}[node.func.id]
            self.add(node, start, stop, other, "call swapped")
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max", "range"):
            self.within(node)
        else:
            bounds, self.bounds = self.bounds, 0
            self.generic_visit(node)
            self.bounds = bounds


def changes_of(path: Path) -> list[Change]:
    """All possible changes of a file that still compile."""
    source = path.read_text()
    finder = Finder(str(path.relative_to(ROOT)), source)
    tree = ast.parse(source)
    finder.visit(tree)
    starts = [finder.at(min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]), 0)
              for node in tree.body]  # fmt: skip
    stops = [finder.span(node)[1] for node in tree.body]
    kept = []
    for change in finder.changes:
        place = bisect.bisect(starts, change.start) - 1
        with contextlib.suppress(SyntaxError):
            ast.parse(source[starts[place] : change.start] + change.new + source[change.stop : stops[place]])
            kept.append(change)
    return kept


# -- which test runs which line ----------------------------------------------------------------------------------------


def trace(folders: Sequence[str], jobs: int) -> int:
    """Run each test file under coverage, with a context for each test, and note how long each test takes."""
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    files = sorted({path for folder in folders for path in (ROOT / folder).rglob("test_*.py")} | {
        ROOT / folder for folder in folders if folder.endswith(".py")
    })  # fmt: skip
    with ThreadPoolExecutor(jobs) as pool:
        failed = [file.name for file, passed in zip(files, pool.map(_traced, files), strict=True) if not passed]
    (STATE / "seconds.json").write_text(json.dumps(_seconds()))
    data = [str(path) for path in STATE.glob("test_*.coverage")]
    combine = [sys.executable, "-m", "coverage", "combine", "--keep", "--data-file", str(STATE / "coverage"), *data]
    done = subprocess.run(combine, cwd=ROOT, stdout=subprocess.DEVNULL)
    print(f"{len(files)} files traced; not passed: {', '.join(failed) or 'none'}")
    return done.returncode


def _traced(file: Path) -> bool:
    """Run one test file; return whether it passed. A failing one is traced all the same."""
    stem = STATE / "_".join(file.relative_to(ROOT / "tests").with_suffix("").parts).replace("test_", "")
    stem = stem.with_name(f"test_{stem.name}")
    command = [sys.executable, "-m", "pytest", "--cov=shardkit", "--cov-context=test", "--cov-report=",
               "--cov-fail-under=0", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={stem}.xml",
               str(file)]  # fmt: skip
    environment = os.environ | {"COVERAGE_FILE": f"{stem}.coverage"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def _seconds() -> dict[str, float]:
    """Test -> seconds, of those that passed."""
    found = {}
    for path in STATE.glob("test_*.xml"):
        for case in ElementTree.parse(path).iter("testcase"):
            if not list(case):
                found[_test_name(case.get("classname", ""), case.get("name", ""))] = float(case.get("time", "0"))
    return found


def _test_name(dotted: str, name: str) -> str:
    """As pytest names a test of the module `dotted`, or of a class in it."""
    parts = dotted.split(".")
    length = next(n for n in range(len(parts), 0, -1) if n == 1 or (ROOT / f"{'/'.join(parts[:n])}.py").is_file())
    return "::".join([f"{'/'.join(parts[:length])}.py", *parts[length:], name])


class Tests:
    """The tests that run a line, fastest first."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = json.loads((STATE / "seconds.json").read_text())
        self._covered: dict[str, dict[int, list[str]]] = {}
        self._base = sqlite3.connect(STATE / "coverage")
        self._contexts = dict(self._base.execute("select id, context from context"))

    def of(self, change: Change) -> list[str]:
        lines = self._lines(change.file)
        statement = range(change.line, change.line - 5, -1)  # of a long one, the first line alone may be traced
        found = next((lines[line] for line in statement if line in lines), [])
        if not found:  # only run in another process: use the tests of the same folder
            folder = f"tests/{Path(change.file).parts[1].removesuffix('.py')}"
            found = [name for name in self.seconds if name.startswith(folder)]
        return sorted(set(found), key=lambda name: self.seconds.get(name, 1.0))

    def _lines(self, file: str) -> dict[int, list[str]]:
        if file not in self._covered:
            lines: dict[int, set[str]] = defaultdict(set)
            query = (
                "select distinct context_id, tono from arc join file on file.id = file_id where path = ? and tono > 0"
            )
            for context, line in self._base.execute(query, (str(ROOT / file),)):
                name = self._contexts[context].rpartition("|")[0]
                if name in self.seconds:
                    lines[line].add(name)
            self._covered[file] = {line: sorted(names) for line, names in lines.items()}
        return self._covered[file]


# -- trying a change ---------------------------------------------------------------------------------------------------


class Slot:
    """A copy of the project in which one change at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        ignore = shutil.ignore_patterns("__pycache__", ".git", "build", "*.egg-info", ".hypothesis")
        shutil.copytree(ROOT, folder, ignore=ignore)

    def tried(self, change: Change, tests: Sequence[str], budget: float) -> str:
        """ "failed", "hung" or "passed"."""
        path = self.folder / change.file
        source = path.read_text()
        path.write_text(source[: change.start] + change.new + source[change.stop :])
        try:
            for part in (tests[:FIRST], tests[FIRST:]):
                if part and (result := self.passes(part, budget)) != "passed":
                    return result
            return "passed"
        finally:
            path.write_text(source)

    def passes(self, tests: Sequence[str], budget: float) -> str:
        """Run these tests in the copy in its current state: "passed", "failed" or "hung"."""
        child = os.fork()
        if child == 0:
            os.setsid()
            _run_tests(self.folder, tests, self.log)
        deadline = time.monotonic() + budget * 4 + 60
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                if os.waitstatus_to_exitcode(status) == 0:
                    return "passed"
                return "hung" if TIMED_OUT.search(self.log.read_bytes()) else "failed"
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "hung"


def _run_tests(folder: Path, tests: Sequence[str], log: Path) -> None:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        sys.path[:] = [str(folder), *[p for p in sys.path if Path(p or ".").resolve() != ROOT]]
        import pytest

        code = int(
            pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=60", *QUIETLY, *tests])
        )
    finally:
        os._exit(code)


def _preload() -> None:
    """Import what every test needs, once, before the first fork; not shardkit itself."""
    import _pytest.assertion.rewrite
    import click
    import google_crc32c
    import hypothesis.strategies
    import msgspec
    import numpy
    import PIL.Image
    import pyarrow.parquet
    import pytest
    import yaml

    del _pytest, click, google_crc32c, hypothesis, msgspec, numpy, PIL, pyarrow, pytest, yaml


def chosen(options: argparse.Namespace, tests: Tests) -> Iterator[Change]:
    """The changes to try: those of one line, or a random sample over all files, weighted by their number of changes."""
    files = [path for folder in options.folders for path in sorted((ROOT / "shardkit" / folder).rglob("*.py"))]
    if options.only:
        file, _, line = options.only.partition(":")
        yield from (c for c in changes_of(ROOT / file) if not line or c.line == int(line))
        return
    every = [change for path in files for change in changes_of(path)]
    random.Random(options.seed).shuffle(every)
    yield from every[: options.count]


def run(options: argparse.Namespace) -> int:
    """Try the changes and print the unnoticed ones; the results are kept in build/mutation/results.jsonl."""
    _preload()
    tests = Tests()
    wanted = list(chosen(options, tests))
    judged = set()
    if options.judged:
        judged = {line.split(": ")[0] for line in Path(options.judged).read_text().splitlines() if line.strip()}
    picked = {change: _within(tests.of(change), tests, options.budget) for change in wanted}
    results: list[tuple[Change, str]] = []
    STATE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(options.jobs) as pool:
        slots = [Slot(Path(base) / f"slot{number}" / "project") for number in range(options.jobs)]

        plain = list(dict.fromkeys(name for names in picked.values() for name in names[:3]))
        if slots[0].passes(plain[:200], options.budget) != "passed":
            print("the tests fail without any change: fix them, or trace again")
            return 2

        def work(change: Change) -> tuple[Change, str]:
            slot = slots.pop()
            try:
                return change, slot.tried(change, picked[change], options.budget)
            finally:
                slots.append(slot)

        with open(STATE / "results.jsonl", "a") as file:
            for number, (change, result) in enumerate(pool.map(work, wanted), 1):
                results.append((change, result))
                file.write(json.dumps({**asdict(change), "result": result, "tests": len(picked[change])}) + "\n")
                file.flush()
                if result != "failed":
                    found = "unnoticed" if result == "passed" else "hangs"
                    print(f"[{number}/{len(wanted)}] {found} {change}", flush=True)
    return _report(results, judged)


def _within(tests: Sequence[str], known: Tests, budget: float) -> list[str]:
    kept: list[str] = []
    spent = 0.0
    for name in tests:
        spent += known.seconds.get(name, 1.0)
        if kept and spent > budget:
            break
        kept.append(name)
    return kept


def _report(results: Sequence[tuple[Change, str]], judged: set[str]) -> int:
    place = {change: f"{change.file}:{change.line}:{change.column}" for change, _ in results}
    counted = [(change, result) for change, result in results if result != "passed" or place[change] not in judged]
    noticed = sum(result != "passed" for _, result in counted)
    folders: dict[str, list[bool]] = defaultdict(list)
    for change, result in counted:
        folders[Path(change.file).parts[1]].append(result != "passed")
    for folder, each in sorted(folders.items()):
        print(f"{folder:10} {sum(each)} of {len(each)} noticed")
    share = noticed / max(1, len(counted))
    hung = sum(result == "hung" for _, result in counted)
    print(
        f"{noticed} of {len(counted)} changes noticed ({share:.1%}), {hung} of them by a hang; "
        f"{len(results) - len(counted)} alter nothing"
    )
    return 0 if share >= 0.95 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    tracing = steps.add_parser("trace", help="note which test runs which line")
    tracing.add_argument("--jobs", type=int, default=2, help="test files run at a time")
    tracing.add_argument("paths", nargs="*", default=["tests"], help="folders and files of tests")
    trying = steps.add_parser("run", help="try changes")
    trying.add_argument("--count", type=int, default=400, help="changes to try (default 400)")
    trying.add_argument("--seed", type=int, default=1, help="seed of the random choice")
    trying.add_argument("--jobs", type=int, default=2, help="changes tried at a time")
    trying.add_argument("--budget", type=float, default=60.0, help="seconds of tests for one change")
    trying.add_argument("--only", help="FILE or FILE:LINE: all changes of it")
    trying.add_argument("--judged", help="a file of changes that alter nothing")
    trying.add_argument("folders", nargs="*", default=list(FOLDERS), help="folders of shardkit/")
    options = parser.parse_args()
    return trace(options.paths, options.jobs) if options.step == "trace" else run(options)


if __name__ == "__main__":
    sys.exit(main())
