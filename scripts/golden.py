#!/usr/bin/env python3
"""Pin what shardkit writes, orders and prints, to show that a change of its structure changes nothing else.

    python scripts/golden.py write          run everything and write scripts/golden.json
    python scripts/golden.py check          run everything and compare; exit 1 and list the differences

It pins the SHA-256 of every file of a dozen packs, the epochs and `state_dict`s of six datasets, the `--json` output
and exit code of every command, and the public names. The sources are drawn in a temporary folder each time. Indexes and
re-encoded images depend on the libraries that write them; if their versions differ from the pinned ones, these files
are compared by content.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import shardkit
from shardkit.cli.main import COMMANDS, run

GOLDEN = Path(__file__).with_name("golden.json")
LIBRARIES = ("pyarrow", "pillow", "numpy")
VOLATILE = {"seconds", "rate", "version", "elapsed", "per_second", "samples_per_second"}
"""Keys of `--json` whose values are measured."""

Found = dict[str, Any]


def draw(path: Path, seed: int, *, size: tuple[int, int] = (40, 30), format: str = "JPEG") -> None:
    """Draw a small image of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    PIL.Image.fromarray(noise).save(path, format)


def draw_sources() -> None:
    """Draw all sources: a tree, a tree of splits, fields, a list, a zip, and more files for the tree."""
    seed = 0
    for name in ("tree/cat", "tree/dog", "splits/train/cat", "splits/train/dog", "splits/test/cat", "splits/test/dog"):
        for number in range(9):
            seed += 1
            draw(Path(f"{name}/{number:03}.jpg"), seed, size=(40 + number, 30))
    draw(Path("tree/dog/a.b c.png"), 900, format="PNG")
    draw(Path(f"tree/cat/{'long' * 30}.jpg"), 901)
    for number in range(8):
        draw(Path(f"fields/{number % 2}/{number}.jpg"), 100 + number)
        Path(f"fields/{number % 2}/{number}.json").write_text(json.dumps({"number": number}))
    with open("list.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "age"])
        rows.writerows([f"tree/cat/{n:03}.jpg", "young" if n % 2 else "old", n] for n in range(9))
    with zipfile.ZipFile("tree.zip", "w") as archive:
        for path in sorted(Path("tree").rglob("*.*")):
            archive.write(path)


PACKS: dict[str, list[str]] = {
    "tar": ["tree", "out/tar/train", "--max-count", "7"],
    "tfrecord": ["tree", "out/tfrecord/train", "--max-count", "7", "--format", "tfrecord"],
    "unshuffled": ["tree", "out/unshuffled/train", "--no-shuffle", "--max-bytes", "40kB"],
    "splits": ["splits", "out/splits"],
    "splits tfrecord": ["splits", "out/splits-tfrecord", "--format", "tfrecord"],
    "split": ["tree", "out/split", "--split", "train=0.7,test=0.3"],
    "fields": ["fields", "out/fields/train", "--fields", "jpg,json"],
    "fields tfrecord": ["fields", "out/fields-tfrecord/train", "--fields", "jpg,json", "--format", "tfrecord"],
    "list": ["list.csv", "out/list/train"],
    "list tfrecord": ["list.csv", "out/list-tfrecord/train", "--format", "tfrecord"],
    "zip": ["tree.zip", "out/zip/train", "--max-count", "7"],
    "zip tfrecord": ["tree.zip", "out/zip-tfrecord/train", "--format", "tfrecord"],
    "resize": ["tree", "out/resize/train", "--resize", "20", "--strip"],
    "webp tfrecord": ["tree", "out/webp/train", "--to", "webp", "--max-side", "32", "--format", "tfrecord"],
    "part 1": ["tree", "out/parts/train", "--max-count", "7", "--part", "1/2"],
    "part 2": ["tree", "out/parts/train", "--max-count", "7", "--part", "2/2"],
}
MORE = {
    "append": ["tree", "out/tar/train", "--append", "--max-count", "7"],
    "append tfrecord": ["tree", "out/tfrecord/train", "--append", "--format", "tfrecord"],
}
"""After three files were added to the tree."""

CALLS: dict[str, list[str]] = {
    "pack again": ["pack", "tree", "out/zip/train", "--max-count", "7", "--json"],
    "pack dry run": ["pack", "tree", "out/new/train", "--dry-run", "--json"],
    "pack: no source": ["pack", "nowhere", "out/new/train", "--json"],
    "pack: in the way": ["pack", "fields", "out/tar/train", "--json"],
    "pack: bad option": ["pack", "tree", "out/new/train", "--max-count", "0"],
    "convert": ["convert", "out/tar/train", "out/converted/train", "--format", "tfrecord", "--json"],
    "convert fields": ["convert", "out/fields/train", "out/renamed/train", "--rename", "json=meta.json", "--json"],
    "info": ["info", "out/tar/train", "--json"],
    "info tfrecord": ["info", "out/tfrecord/train", "--json"],
    "info: nothing there": ["info", "out/nothing", "--json"],
    "verify": ["verify", "out/tar/train", "--json"],
    "verify tfrecord": ["verify", "out/tfrecord/train", "--decode", "--json"],
    "verify damaged": ["verify", "damaged/train", "--json"],
    "repair": ["repair", "damaged/train", "out/repaired/train", "--json"],
    "unpack": ["unpack", "out/tar/train", "out/again", "--json"],
    "upload": ["upload", "out/tar/train", "memory://golden/train", "--json"],
    "download": ["download", "memory://golden/train", "out/downloaded/train", "--json"],
    "export": ["export", "out/downloaded/train", "--timm", "--class-names", "--json"],
    "index": ["index", "bare/train-*.tar", "--json"],
    "shuffle-quality": ["shuffle-quality", "out/tar/train", "--json"],
    "view": ["view", "out/tar/train", "--out", "view.png", "--count", "2", "--json"],
    "report": ["report", "out/tar/train", "--out", "report.html", "--json"],
    "bench": ["bench", "nowhere", "--json"],
    "completion": ["completion", "bash"],
    "demo: bad option": ["demo", "--nothing"],
    "a command that does not exist": ["pakc"],
    "merge": ["merge", "out/parts/train", "--json"],
    "relabel": ["relabel", "corrected/train", "corrections.csv", "--message", "a cat", "--json"],
    "delete": ["delete", "corrected/train", "--key", "cat/001", "--json"],
    "revert": ["revert", "corrected/train", "2", "--json"],
    "diff": ["diff", "corrected/train@1", "corrected/train@3", "--json"],
    "log": ["log", "corrected/train", "--json"],
    "add-fields": ["add-fields", "filled/train", "fields.csv", "--message", "an age", "--json"],
    "diff of fields": ["diff", "filled/train@1", "filled/train", "--json"],
    "log of fields": ["log", "filled/train", "--json"],
}


def call(arguments: list[str]) -> tuple[int, str]:
    """Run a command: (exit code, stdout)."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = run(arguments)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return code, out.buffer.getvalue().decode()


def printed(text: str) -> Any:
    """A command's JSON output without measured values and paths; None if it is not JSON."""
    try:
        return _steady(json.loads(text.replace(os.getcwd(), "HERE")))
    except ValueError:
        return None


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in VOLATILE}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def sums(folder: str) -> dict[str, str]:
    """File -> SHA-256 of its bytes; for an index, also of its rows."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and not any(part.endswith(".packing") for part in path.parts):  # differ by run
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.suffix == ".parquet":
                found[f"{path}: rows"] = rows_of(path)
    return found


def rows_of(path: Path) -> str:
    """The SHA-256 of the rows of an index."""
    import pyarrow.parquet as pq

    return hashlib.sha256(repr(pq.read_table(path).to_pylist()).encode()).hexdigest()


def packs() -> Iterator[tuple[str, Any]]:
    """Run every pack: its exit code, output and files."""
    for name, arguments in PACKS.items():
        code, text = call(["pack", *arguments, "--workers", "1", "--json"])
        yield (
            f"pack {name}",
            {"exit": code, "json": printed(text), "files": sums("/".join(arguments[1].split("/")[:2]))},
        )


def additions() -> Iterator[tuple[str, Any]]:
    """Run the packs that append to others."""
    for number in range(3):
        draw(Path(f"tree/{'bird' if number else 'dog'}/new{number}.jpg"), 500 + number)
    for name, arguments in MORE.items():
        code, text = call(["pack", *arguments, "--workers", "1", "--json"])
        yield (
            f"pack {name}",
            {"exit": code, "json": printed(text), "files": sums("/".join(arguments[1].split("/")[:2]))},
        )


def prepared() -> None:
    """Prepare a damaged dataset, one to correct, and shards without a manifest, for the commands."""
    import shutil

    shutil.copytree("out/tar", "damaged")
    shutil.copytree("out/tar", "corrected")
    shutil.copytree("out/tar", "filled")
    Path("corrections.csv").write_text("key,label\ndog/000,cat\n")
    Path("fields.csv").write_text("key,age\ndog/000,7\n")
    shard = Path("damaged/train-000001.tar")
    data = bytearray(shard.read_bytes())
    data[700] ^= 255
    shard.write_bytes(data)
    Path("bare").mkdir()
    for path in Path("out/zip").glob("*.tar"):
        shutil.copy(path, "bare")


def commands() -> Iterator[tuple[str, Any]]:
    """Run every command: its exit code and JSON output."""
    missing = set(COMMANDS) - {arguments[0] for arguments in CALLS.values()} - {"pack"}
    assert not missing, f"no call of {missing}"
    for name, arguments in CALLS.items():
        code, text = call(arguments)
        yield name, {"exit": code, "json": printed(text)}
    folders = (
        "out/converted",
        "out/renamed",
        "out/repaired",
        "out/again",
        "out/downloaded",
        "bare",
        "corrected",
        "filled",
    )
    for folder in folders:
        yield f"files of {folder}", sums(folder)


DATASETS: dict[str, Mapping[str, Any]] = {
    "plain": {"source": "out/tar/train"},
    "full shuffle": {"source": "out/tar/train", "shuffle": True, "seed": 3},
    "small buffer": {"source": "out/tar/train", "shuffle": 4, "seed": 1, "lanes": 2},
    "tfrecord": {"source": "out/tfrecord/train", "shuffle": 8, "seed": 2},
    "rank 1 of 3": {"source": "out/tar/train", "shuffle": 8, "seed": 2, "rank": 1, "world_size": 3},
    "fields": {"source": "out/fields/train", "shuffle": True, "seed": 5},
}


def orders() -> Iterator[tuple[str, Any]]:
    """Two epochs of keys, a state in the middle, what follows it, and a batch of pixels for each dataset."""
    for name, options in DATASETS.items():
        data = shardkit.dataset(**options)
        epochs = []
        for epoch in range(2):
            data.set_epoch(epoch)
            epochs.append([sample["__key__"] for sample in data])
        data.set_epoch(0)
        batches = data.batch(4)
        stream = iter(batches)
        next(stream)
        state = batches.state_dict()
        del stream
        resumed = data.batch(4)
        resumed.load_state_dict(state)
        rest = [list(batch["__key__"]) for batch in resumed]
        images, labels = next(iter(data.decode(size=16, crop="random", flip=True).batch(4)))
        pixels = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        yield (
            name,
            {"epochs": epochs, "state": state, "rest": rest, "pixels": pixels, "labels": np.asarray(labels).tolist()},
        )


def measured() -> Found:
    """Everything that is pinned."""
    draw_sources()
    found: Found = {"libraries": {name: version(name) for name in LIBRARIES}}
    found["packs"] = dict(packs())
    found["orders"] = dict(orders())
    prepared()
    found["commands"] = dict(commands())
    found["additions"] = dict(additions())
    found["names"] = sorted(shardkit.__all__)
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """A line for each difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key not in old or key not in new:
                yield f"{place}/{key}: {'new' if key not in old else 'gone'}"
            else:
                yield from differences(old[key], new[key], f"{place}/{key}")
    elif old != new:
        yield f"{place}: {str(old)[:80]} -> {str(new)[:80]}"


def main() -> int:
    """Run `write` or `check`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("write", "check"))
    parser.add_argument("--file", type=Path, default=GOLDEN)
    options = parser.parse_args()
    target, here = options.file.resolve(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(os.path.realpath(folder))
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        try:
            found = measured()
        finally:
            os.chdir(here)
    if options.step == "write":
        target.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(
            f"{target.name}: {len(found['packs'])} packs, {len(found['orders'])} orders, {len(found['commands'])} calls"
        )
        return 0
    pinned = json.loads(target.read_text())
    other = pinned["libraries"] != found["libraries"]
    lines = list(differences(pinned, found))
    if other:
        print("libraries differ: files that they write are not compared")
        lines = [
            line
            for line in lines
            if not any(word in line for word in (".parquet:", "crc32c", "libraries", "resize", "webp"))
        ]
    print("\n".join(lines) or "nothing differs")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
