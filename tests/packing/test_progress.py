"""What packing and converting tell of how far they are: whole samples, and the bytes of the source, to the last."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.events import Progress
from shardkit.formats.format import FORMATS
from shardkit.packing.write.sink import Meter
from shardkit.tools.convert.convert import convert

PACKED: dict[str, dict[str, Any]] = {"one file": {"ext": "jpg"}, "several files": {"fields": "jpg,json"}}
Draw = Callable[..., bytes]


@pytest.fixture
def seven(tmp_path: Path, draw_image: Draw) -> Path:
    """A class of seven images, each with a text beside it that is one byte longer than the one before; one is bad."""
    root = tmp_path / "seven"
    (root / "a").mkdir(parents=True)
    for n in range(7):
        (root / "a" / f"{n}.jpg").write_bytes(draw_image(n) if n != 1 else b"no image")
        (root / "a" / f"{n}.json").write_bytes(b'"%s"' % (b"x" * n))
    return root


Told = list[tuple[int, int, int, int]]


def told_by(run: Callable[..., Any], source: Path, dest: Path, **options: Any) -> Told:
    """(done, bytes_done, total, bytes_total) of each call, after those of the scan."""
    told: list[Progress] = []
    run(source, dest, workers=1, progress=told.append, **options)
    return [(now.done, now.bytes_done, now.total, now.bytes_total) for now in told if now.step != "scan"]


@pytest.mark.parametrize("transcoded", [False, True])
@pytest.mark.parametrize("held", ["folders", "an archive"])
@pytest.mark.parametrize("sample", PACKED)
def test_packing_tells_samples_and_the_bytes_of_their_files(
    seven: Path, out: Path, monkeypatch: pytest.MonkeyPatch, sample: str, held: str, *, transcoded: bool
) -> None:
    sizes = [(seven / "a" / f"{n}.jpg").stat().st_size for n in range(7)]
    if sample == "several files":
        sizes = [size + 2 + n for n, size in enumerate(sizes)]
    options = PACKED[sample] | {"shuffle": False, "on_error": "skip", "check": "full"}
    if transcoded:
        options["images"] = shardkit.Images(resize=8)
    source = Path(shutil.make_archive(str(seven), "zip", seven)) if held == "an archive" else seven
    reached = list(accumulate(sizes))
    monkeypatch.setattr(Meter, "TELL_FILES", 3)
    assert told_by(shardkit.pack, source, out / "by_files", **options) == [
        (n, reached[n - 1], 7, reached[-1]) for n in (3, 6, 7)
    ]
    monkeypatch.setattr(Meter, "TELL_FILES", 10)
    monkeypatch.setattr(Meter, "TELL_BYTES", reached[4])
    assert told_by(shardkit.pack, source, out / "by_bytes", **options) == [
        (n, reached[n - 1], 7, reached[-1]) for n in (5, 7)
    ]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("form", FORMATS)
def test_converting_tells_samples_and_the_bytes_of_the_source(
    seven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, to: str
) -> None:
    manifest = shardkit.pack(seven, tmp_path / "x", format=form, ext="jpg", on_error="skip", workers=1)
    assert isinstance(manifest, shardkit.Packed)
    whole = manifest.bytes
    monkeypatch.setattr(Meter, "TELL_FILES", 4)
    told = told_by(convert, tmp_path / "x", tmp_path / "y", format=to)
    assert [(done, total, total_bytes) for done, _, total, total_bytes in told] == [(4, 6, whole), (6, 6, whole)]
    assert 0 < told[0][1] < told[1][1] == whole - len(FORMATS[form].end)


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_compressed_shard_its_compressed_bytes_are_told(
    seven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    manifest = shardkit.pack(seven, tmp_path / "x", format=form, ext="jpg", on_error="skip", workers=1)
    assert isinstance(manifest, shardkit.Packed)
    packed = tmp_path / f"x.{form}.gz"
    packed.write_bytes(gzip.compress((tmp_path / manifest.shards[0].name).read_bytes()))
    monkeypatch.setattr(Meter, "TELL_FILES", 4)
    told = told_by(convert, packed, tmp_path / "y", format="tar")
    size = packed.stat().st_size
    assert [(done, total, total_bytes) for done, _, total, total_bytes in told] == [(4, 6, size), (6, 6, size)]
    assert 0 < told[0][1] <= told[1][1] == size
