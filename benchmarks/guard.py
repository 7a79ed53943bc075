"""Check that shardkit keeps its lead over fixed peers: ratios from interleaved rounds, kept in guard.json.

    python benchmarks/guard.py run --data DIR      measure, write guard.json and the table in RESULTS.md
    python benchmarks/guard.py check --data DIR    measure, compare with guard.json; exit code 1 if a ratio fell
    python benchmarks/guard.py table [--check]     write the table in RESULTS.md (or compare it) from guard.json

Each job runs on a sample of a class tree. `--quick` omits the jobs on photographs and the peers that need TensorFlow,
and takes less than two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import monotonic

import contestants as _contestants  # noqa: F401  fills the table
from harness import class_tree, find
from prepare import Tree, fresh_dest, input_files, prepare, trees
from process import ContestantError, ask
from report import Row, number, paired_ratio, table
from run import figure, progress, remark, warm

HERE = Path(__file__).parent
STORED = HERE / "guard.json"
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- guard.py writes from here -->", "<!-- to here -->"

US = "shardkit"
IMAGES = {"cifar10": 10_000, "photos": 400}  # number of images per tree, evenly spaced
SHARD_BYTES = 4_000_000  # small, to get several shards that the peers' workers can share
ROUNDS, QUICK_ROUNDS = 5, 3
SECONDS, QUICK_SECONDS = 1200, 100  # no round starts that would, judging by the earlier ones, end later than this
TOLERANCE = 0.3  # on a shared machine, a median may be this far below the worst stored round
SLOW_TO_LOAD = "tensorflow"


@dataclass(frozen=True, slots=True)
class Job:
    """One mode on one tree, and the peers whose rates are compared with shardkit's."""

    name: str
    mode: str
    tree: str
    variant: str
    peers: tuple[str, ...]


JOBS = (
    Job("pack CIFAR-10", "pack", "cifar10", "", ("GNU tar + sync", "webdataset.ShardWriter", "tf.io.TFRecordWriter")),
    Job(
        "read CIFAR-10, undecoded",
        "raw",
        "cifar10",
        "",
        ("bare loop (mapped, offsets known)", "webdataset", "tf.data TFRecord"),
    ),
    Job(
        "batches of CIFAR-10",
        "batches",
        "cifar10",
        "plain",
        ("bare loop, 2 threads", "webdataset, DataLoader of 2 workers", "tf.data TFRecord"),
    ),
    Job(
        "batches of photographs, random crop",
        "batches",
        "photos",
        "random",
        (
            "bare loop, 2 threads, DCT scaling by 2 or more",
            "webdataset, DataLoader of 2 workers",
            "tf.data TFRecord",
        ),
    ),
)

Rates = dict[str, list[float]]  # of each contestant, in the order of the rounds


@dataclass(slots=True)
class Outcome:
    """The results of a job so far."""

    job: Job
    tree: Tree
    rates: Rates
    notes: dict[str, str]


def sample_trees(data: Path, scratch: Path, names: set[str]) -> dict[str, Tree]:
    """The trees `NAME/train` in `data`, reduced to IMAGES images, as trees of links in `scratch`."""
    for name in sorted(names):
        files = class_tree(str(data / name / "train"))
        step = max(1, len(files) // IMAGES[name])
        for path, _key, _label in files[::step][: IMAGES[name]]:
            link = scratch / "data" / name / "train" / Path(path).parent.name / Path(path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, link)
    return {tree.case.tree: tree for tree in trees(scratch / "data", scratch / "packed", None)}


def taking_part(job: Job, tree: Tree, *, quick: bool) -> Iterator[tuple[str, str]]:
    """(name, version) of shardkit and the peers that are installed and have their shards."""
    for name in (US, *job.peers):
        one = find(job.mode, name)
        version = one.version()
        if version is None or (quick and SLOW_TO_LOAD in one.needs):
            continue
        if not one.reads or prepare(tree.case, one.reads, SHARD_BYTES):
            yield name, version


def outcomes_of(data: Path, scratch: Path, *, quick: bool) -> list[Outcome]:
    """Prepare without measuring: trees, shards to read, warm page cache."""
    jobs = [job for job in JOBS if (data / job.tree / "train").is_dir() and not (quick and job.tree == "photos")]
    if not jobs:
        raise SystemExit(f"{data}: there is no cifar10/train or photos/train in it")
    found = sample_trees(data, scratch, {job.tree for job in jobs})
    outcomes = []
    for job in jobs:
        tree = found[job.tree]
        tree = replace(tree, case=replace(tree.case, variant=job.variant))
        notes = dict(taking_part(job, tree, quick=quick))
        warm({path for name in notes for path in input_files(tree.case, find(job.mode, name))})
        outcomes.append(Outcome(job, tree, {name: [] for name in notes}, notes))
    return outcomes


def run_round(outcomes: list[Outcome]) -> None:
    """Run every contestant of every job once, in turn. One that fails, or yields too few samples, is excluded."""
    for outcome in outcomes:
        job, tree = outcome.job, outcome.tree
        for name in list(outcome.rates):
            progress(f"{job.name}: {name}")
            if job.mode == "pack":
                fresh_dest(tree.case)
            try:
                answer = ask(job.mode, name, tree.case)
                fault = remark(find(job.mode, name), answer, tree)
            except ContestantError as error:
                fault = f" failed: {error}"
            if fault and name == US:
                raise SystemExit(f"{job.name}: shardkit{fault}")
            if fault:
                print(f"{job.name}: {name}{fault}", file=sys.stderr)
                del outcome.rates[name], outcome.notes[name]
            else:
                outcome.rates[name].append(figure(job.mode, answer, tree))
    progress("")


def measure(data: Path, *, rounds: int, seconds: float, quick: bool) -> dict[str, object]:
    """Run all jobs in interleaved rounds; return the content of guard.json."""
    loads = []
    ends = monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="shardkit-guard-") as scratch:
        outcomes = outcomes_of(data, Path(scratch), quick=quick)
        for _ in range(rounds):
            began = monotonic()
            run_round(outcomes)
            loads.append(round(os.getloadavg()[0], 1))
            if monotonic() + (monotonic() - began) > ends:
                break
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": loads,
        "jobs": [
            {"name": o.job.name, "samples": o.tree.samples, "versions": o.notes, "samples/s": rounded(o.rates)}
            for o in outcomes
        ],
    }


def rounded(rates: Rates) -> Rates:
    """Round to whole samples."""
    return {name: [round(rate) for rate in values] for name, values in rates.items()}


def ratios_of(result: dict[str, object]) -> dict[tuple[str, str], list[float]]:
    """{(job, peer): shardkit's rate divided by the peer's in each round}."""
    found = {}
    for job in result["jobs"]:  # type: ignore[attr-defined]
        rates: Rates = job["samples/s"]
        for peer, theirs in rates.items():
            if peer != US:
                found[job["name"], peer] = [a / b for a, b in zip(rates[US], theirs, strict=True)]
    return found


def fallen(stored: dict[str, object], now: dict[str, object]) -> list[str]:
    """A line for each ratio whose median is more than TOLERANCE below the worst stored round."""
    before, after = ratios_of(stored), ratios_of(now)
    return [
        f"{job}, against {peer}: {median(after[job, peer]):.2f}, below the stored {min(before[job, peer]):.2f}"
        for job, peer in sorted(before.keys() & after.keys())
        if median(after[job, peer]) < min(before[job, peer]) * (1 - TOLERANCE)
    ]


def markdown(result: dict[str, object]) -> str:
    """The table of RESULTS.md, and what it was measured on."""
    rows: list[Row] = []
    for job in result["jobs"]:  # type: ignore[attr-defined]
        rates: Rates = job["samples/s"]
        for name, values in rates.items():
            ratio = "" if name == US else paired_ratio(rates[US], values)
            title = f"{job['name']} ({job['samples']:,} images)" if name == US else ""
            rows.append((title, name, number(median(values)), ratio, job["versions"][name]))
    load: list[float] = result["load"]  # type: ignore[assignment]
    rounds = f"{len(load)} interleaved round{'s' if len(load) > 1 else ''}"
    where = f"{result['cores']} cores, Python {result['python']}, {rounds}, load average {min(load)} to {max(load)}."
    head = ("job", "contestant", "median samples/s", "shardkit is … times as fast", "version")
    return f"{where}\n\n{table(head, rows, markdown=True)}"


def with_table(text: str, result: dict[str, object]) -> str:
    """The text of RESULTS.md with the table of `result`."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{markdown(result)}\n\n{END}{rest.partition(END)[2]}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("run", "check"):
        measuring = verbs.add_parser(verb)
        measuring.add_argument(
            "--data", type=Path, required=True, metavar="DIR", help="folder of cifar10/train, photos/train"
        )
        measuring.add_argument(
            "--rounds", type=int, metavar="N", help=f"default {ROUNDS}, or {QUICK_ROUNDS} with --quick"
        )
        measuring.add_argument(
            "--seconds", type=float, metavar="N", help=f"default {SECONDS}, or {QUICK_SECONDS} with --quick"
        )
        measuring.add_argument("--quick", action="store_true", help="fewer rounds, no photographs, no TensorFlow")
        measuring.add_argument(
            "--json", type=Path, metavar="FILE", default=STORED, help="write to, or compare with, FILE"
        )
    verbs.add_parser("table").add_argument("--check", action="store_true", help="exit with 1 if RESULTS.md differs")
    return parser.parse_args(arguments)


def write_table(*, check: bool) -> int:
    """Write RESULTS.md from guard.json; return the exit code."""
    text = RESULTS.read_text("utf-8")
    wanted = with_table(text, json.loads(STORED.read_text("utf-8")))
    if not check:
        RESULTS.write_text(wanted, "utf-8")
    elif wanted != text:
        print("RESULTS.md differs from guard.json: run 'python benchmarks/guard.py table'", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run the command line; return the exit code."""
    options = parse()
    if options.verb == "table":
        return write_table(check=options.check)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    result = measure(options.data, rounds=rounds, seconds=seconds, quick=options.quick)
    print(markdown(result))
    if options.verb == "check":
        lines = fallen(json.loads(options.json.read_text("utf-8")), result)
        print("\n".join(lines) or "no ratio has fallen")
        return 1 if lines else 0
    options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return write_table(check=False) if options.json == STORED else 0


if __name__ == "__main__":
    sys.exit(main())
