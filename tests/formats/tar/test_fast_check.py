"""Shards that are summed against their index, and not parsed: what that gives is what parsing gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from msgspec.structs import replace

from shardkit import checksums, pack, verify
from shardkit.formats.tar import fast_check
from shardkit.formats.tar.fast_check import plain_sums
from shardkit.location import Location
from shardkit.shards.open import IndexRows, open_dataset
from shardkit.shards.scan import ShardContent, open_shard, read_shard

needs_extension = pytest.mark.skipif(checksums.parts_extension() is None, reason="the C extension is not built here")


def rows_of(prefix: Path, number: int = 0) -> tuple[Location, IndexRows]:
    shard = open_dataset(prefix).shards[number]
    rows = shard.rows()
    assert rows is not None
    return shard.location, rows


def summed(location: Location, rows: IndexRows) -> Any:
    return plain_sums(location.path, rows.keys, rows.paths, rows.numbers)


@pytest.fixture
def varied(tmp_path: Path, draw_image: Callable[..., bytes]) -> Path:
    """One shard of JPEGs and PNGs of 12 classes, with names that are not all ASCII, and one empty-looking size."""
    for number in range(24):
        folder = tmp_path / "tree" / f"class-{number % 12:02}"
        folder.mkdir(parents=True, exist_ok=True)
        kind, ending = (("PNG", "png"), ("JPEG", "JPEG"), ("JPEG", "jpg"))[number % 3]
        data = draw_image(number, format=kind, size=(8 + number, 9))
        (folder / f"bild-ü{number}.{ending}").write_bytes(data + bytes(-len(data) % 512 if number == 5 else 0))
    pack(tmp_path / "tree", tmp_path / "varied", workers=1)
    return tmp_path / "varied"


def same(left: ShardContent, right: ShardContent) -> bool:
    assert {name: column.tolist() for name, column in left.numbers.items()} == {
        name: column.tolist() for name, column in right.numbers.items()
    }
    plain = {"numbers": {}, "fields": {}}
    assert set(left.fields) == set(right.fields)
    return replace(left, **plain) == replace(right, **plain)


@needs_extension
def test_a_plain_shard_has_the_content_that_parsing_gives(varied: Path) -> None:
    location, rows = rows_of(varied)
    assert summed(location, rows) is not None
    shard = open_shard(location)
    assert same(read_shard(shard, rows), read_shard(shard))


@needs_extension
def test_each_changed_byte_that_is_not_of_an_image_sends_the_shard_to_the_parser(
    tmp_path: Path, draw_tree: Any
) -> None:
    pack(draw_tree(tmp_path / "tree", {"a": 2, "b": 1}, size=(8, 8)), tmp_path / "d", workers=1)
    location, rows = rows_of(tmp_path / "d")
    truth = summed(location, rows)
    data = Path(location.path).read_bytes()
    starts, sizes = rows.numbers["image_offset"].tolist(), rows.numbers["image_size"].tolist()
    image_at = {
        at: n for n, (start, size) in enumerate(zip(starts, sizes, strict=True)) for at in range(start, start + size)
    }
    for at in range(0, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 0x10
        Path(location.path).write_bytes(changed)
        found = summed(location, rows)
        if at in image_at:
            wrong = np.flatnonzero(found.sums != truth.sums).tolist()
            assert (wrong, found.crc32c) == ([image_at[at]], google_crc32c.value(bytes(changed)))
        else:
            assert found is None, at


@needs_extension
def test_a_longer_or_shorter_file_goes_to_the_parser(varied: Path) -> None:
    location, rows = rows_of(varied)
    data = Path(location.path).read_bytes()
    assert summed(location, rows).crc32c == google_crc32c.value(data)
    for other in (data[:-1024], data[:-1], data[:-3000], data + b"x", data + bytes(1 << 17), b""):
        Path(location.path).write_bytes(other)
        assert summed(location, rows) is None
    Path(location.path).write_bytes(data + bytes(8192))  # more zeros are an end mark as well
    assert summed(location, rows).crc32c == google_crc32c.value(data + bytes(8192))


@needs_extension
@pytest.mark.parametrize("column", ["label", "offset", "size", "image_offset", "image_size"])
@pytest.mark.parametrize("value", [-1, 0, 1, 7, 2**40, 2**63 - 1])
def test_each_wrong_number_in_the_index_sends_the_shard_to_the_parser(varied: Path, column: str, value: int) -> None:
    location, rows = rows_of(varied)
    for row in (0, 11, len(rows.keys) - 1):
        numbers = {name: np.array(values) for name, values in rows.numbers.items()}
        if numbers[column][row] != value:
            numbers[column][row] = value
            assert plain_sums(location.path, rows.keys, rows.paths, numbers) is None


@needs_extension
@pytest.mark.parametrize("key", ["", "other", "a/", "__a", "a.b", "a\nb", "a\0b", "a" * 97, "ü" * 49])
def test_each_other_key_sends_the_shard_to_the_parser(varied: Path, key: str) -> None:
    location, rows = rows_of(varied)
    for row in (0, 11, len(rows.keys) - 1):
        keys = [*rows.keys[:row], key, *rows.keys[row + 1 :]]
        assert plain_sums(location.path, keys, rows.paths, rows.numbers) is None


@needs_extension
def test_another_field_sends_the_shard_to_the_parser(varied: Path) -> None:
    location, rows = rows_of(varied)
    for path in ("a.gif", "a.txt", "a"):
        assert plain_sums(location.path, rows.keys, [path, *rows.paths[1:]], rows.numbers) is None


@pytest.mark.parametrize("damage", ["none", "image", "header"])
def test_verify_finds_the_same_without_the_extension(
    varied: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    location, rows = rows_of(varied)
    data = bytearray(Path(location.path).read_bytes())
    if damage != "none":
        data[int(rows.numbers["offset"][3]) + (700 if damage == "image" else 5)] ^= 1
    Path(location.path).write_bytes(data)
    with_it = verify(varied)
    for module in (checksums, fast_check):
        monkeypatch.setattr(module, "parts_extension", lambda: None)
    assert verify(varied) == with_it
    assert with_it.sound is (damage == "none")


@needs_extension
def test_an_error_of_the_disk_is_a_finding(varied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fails)
    findings = verify(varied).findings
    assert "shard-unreadable" in {item.kind for item in findings}
    assert "Input/output error" in str(findings[0])


@needs_extension
def test_the_extension_gives_the_systems_errors_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    sums = checksums.parts_extension()
    with open(tmp_path / "file", "wb") as file:
        file.write(bytes(range(200)))
    cuts, crcs = np.array([0, 50, 100], np.int64), np.zeros(2, np.uint32)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert sums.sum_parts(fd, cuts, crcs, bytearray(50)) == (100, google_crc32c.value(bytes(range(100))))
        assert crcs.tolist() == [google_crc32c.value(bytes(range(n, n + 50))) for n in (0, 50)]
        assert sums.sum_parts(fd, cuts[:1], crcs, bytearray()) == (0, 0)
        for wrong in ([0, 50, 40], [-1, 50, 100], [0, 51, 100]):
            with pytest.raises(ValueError, match="ascend"):
                sums.sum_parts(fd, np.array(wrong, np.int64), crcs, bytearray(50))
        with pytest.raises(ValueError, match="too small"):
            sums.sum_parts(fd, cuts, crcs[:1], bytearray(50))
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="descriptor"):
        sums.sum_parts(fd, cuts, crcs, bytearray(50))
    with pytest.raises(ValueError, match="within"):
        sums.sum_bytes(b"abc", 1, 4)


def test_the_crc_is_the_same_with_and_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.frombuffer(np.random.default_rng(0).bytes(100_001), np.uint8)
    ranges = [(0, 0), (3, 99), (7, 775), (7, 776), (1, 24_577), (5, 60_000), (1, len(data))]
    expected = [google_crc32c.value(data[start:end]) for start, end in ranges]
    for extension in (checksums.parts_extension(), None):
        monkeypatch.setattr(checksums, "parts_extension", lambda found=extension: found)
        crc = checksums.summer(data)
        assert [crc(start, end) for start, end in ranges] == expected
