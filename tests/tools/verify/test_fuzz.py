"""10,000 random damages: each is found, or all that is read is as it was."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from shardkit import dataset, pack, repair, verify

DAMAGES = 10_000
PARTS = 10
REPAIRS = 300
Read = tuple[list[tuple[str, bytes, int]], list[str], int]


def files_of_dataset(draw_tree: Any, folder: Path, form: Any) -> dict[str, bytes]:
    """The files of a dataset of 7 tiny images in 2 shards."""
    tree = draw_tree(folder / "tree", {"blue": 3, "red": 4}, size=(8, 8))
    pack(tree, folder / "d" / "train", format=form, workers=1, max_count=4)
    return {path.name: path.read_bytes() for path in sorted((folder / "d").iterdir())}


@pytest.fixture(scope="module")
def sound(draw_tree: Any, tmp_path_factory: Any) -> dict[str, bytes]:
    """The files of a dataset of tar shards."""
    return files_of_dataset(draw_tree, tmp_path_factory.mktemp("sound"), "tar")


def read(prefix: Path) -> Read:
    samples = dataset(prefix)
    return sorted((s["__key__"], bytes(s["jpg"]), int(s["cls"])) for s in samples), list(samples.classes), len(samples)


def damaged(chance: random.Random, data: bytes) -> bytes:
    """`data` with one random damage."""
    out, size = bytearray(data), len(data)
    at, length = chance.randrange(size), chance.choice([1, 2, 8, 64, 512, 1024])
    match chance.choice(["bit", "byte", "zero", "cut", "insert", "delete", "swap", "append", "copy"]):
        case "bit":
            out[at] ^= 1 << chance.randrange(8)
        case "byte":
            out[at] = chance.randrange(256)
        case "zero":
            out[at : at + length] = bytes(len(out[at : at + length]))
        case "cut":
            del out[at:]
        case "insert":
            out[at:at] = chance.randbytes(length)
        case "delete":
            del out[at : at + length]
        case "swap":
            other = chance.randrange(size)
            out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
        case "append":
            out += chance.choice([bytes(length), chance.randbytes(length)])
        case "copy":
            source, target = (chance.randrange(size // 512 + 1) * 512 for _ in range(2))
            out[target : target + length] = data[source : source + length]
    return bytes(out)


def share_found(files: dict[str, bytes], seeds: range, folder: Path) -> float:
    """The share of the damages that is found. Asserts that each other one changes nothing of what is read."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    truth = read(folder / "train")
    found = 0
    for seed in seeds:
        chance = random.Random(seed)
        name = chance.choice(sorted(files))
        (folder / name).write_bytes(damaged(chance, files[name]))
        if verify(folder / "train", workers=1).findings:
            found += 1
        else:
            assert read(folder / "train") == truth, f"damage {seed} of {name} was not found"
        (folder / name).write_bytes(files[name])
    return found / len(seeds)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_damage_is_found_or_harmless(part: int, sound: dict[str, bytes], tmp_path: Path) -> None:
    assert share_found(sound, range(part, DAMAGES, PARTS), tmp_path) > 0.8


def test_every_damage_of_tfrecord_is_found_or_harmless(draw_tree: Any, tmp_path: Path) -> None:
    files = files_of_dataset(draw_tree, tmp_path / "made", "tfrecord")
    assert share_found(files, range(DAMAGES // PARTS), tmp_path) > 0.8


def test_a_repaired_dataset_is_sound_and_holds_nothing_but_what_was_there(
    sound: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, data in sound.items():
        (source / name).write_bytes(data)
    truth = read(source / "train")
    lost = 0
    for seed in range(REPAIRS):
        chance = random.Random(seed)
        name = chance.choice([name for name in sorted(sound) if name.endswith(".tar")])
        data = damaged(chance, sound[name])
        (source / name).write_bytes(data)
        result = repair(source / "train", tmp_path / "mended" / "train", overwrite=True, workers=1)
        assert verify(tmp_path / "mended" / "train", workers=1).findings == ()
        samples, classes, count = read(tmp_path / "mended" / "train")
        assert set(samples) <= set(truth[0])
        assert (classes, count) == (truth[1], len(truth[0]) - len(result.left_out))
        assert (source / name).read_bytes() == data
        lost += len(result.left_out)
        (source / name).write_bytes(sound[name])
    assert lost < REPAIRS
