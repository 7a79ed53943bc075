"""The packer's fast way in C gives the bytes, index rows and errors of the way in Python."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images.jpegs import EOI, lossless, of_441, photo
from images.test_jpeg import NO_END, NOT_DECODED, STRAY

import shardkit
from shardkit.formats.tar import fast_write
from shardkit.formats.tar.fast_write import Gatherer
from shardkit.images.jpeg import MAX_SCANS

pytestmark = pytest.mark.skipif(fast_write.extension() is None, reason="the C extension is not built here")


def packed(tree: Path, dest: Path, **options: object) -> dict[str, bytes]:
    shardkit.pack(tree, dest, workers=1, **options)
    return {path.name.replace(dest.name, "d"): path.read_bytes() for path in sorted(dest.parent.glob(dest.name + "*"))}


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(fast_write, "extension", lambda: None)


@pytest.fixture
def odd_tree(tree: Path, draw_image: Callable[..., bytes]) -> Path:
    """The tree, with names and images among the plain ones that the fast way leaves to Python."""
    folder = tree / "red"
    (folder / "a.b.c.jpg").write_bytes(draw_image(1))
    (folder / ("n" * 120 + ".jpg")).write_bytes(draw_image(2))
    (folder / "with a space.JPEG").write_bytes(draw_image(3))
    (folder / "übung.jpg").write_bytes(draw_image(4))
    (folder / "picture.png").write_bytes(draw_image(5, format="PNG"))
    (folder / "really-a-png.jpg").write_bytes(draw_image(6, format="PNG"))
    (folder / "trailing.jpg").write_bytes(draw_image(7) + b"more")
    (folder / "large.jpg").write_bytes(draw_image(8)[:-2] + bytes(2 << 20) + b"\xff\xd9")
    (folder / "gray.jpg").write_bytes(draw_image(9, mode="L"))
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.jpg"), "wb") as file:
        file.write(draw_image(10))
    return tree


def test_both_ways_write_the_same_bytes(
    odd_tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes]
) -> None:
    for number in range(300):
        (odd_tree / "blue" / f"more{number}.jpg").write_bytes(draw_image(number, size=(9 + number % 50, 20)))
    fast = packed(odd_tree, tmp_path / "fast" / "d", max_bytes="1MiB")
    in_python()
    assert packed(odd_tree, tmp_path / "slow" / "d", max_bytes="1MiB") == fast
    assert len(fast) > 4


@pytest.mark.parametrize("name_bytes", [99, 100, 101])
def test_a_name_around_the_100_bytes_of_ustar_is_written_as_in_python(
    tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], name_bytes: int
) -> None:
    name = "blue/" + "n" * (name_bytes - len("blue/.jpg")) + ".jpg"
    (tree / name).write_bytes(draw_image(3))
    taken = gatherer(tree, [name]).take(0)
    assert len(taken.records) == (name_bytes <= 100)
    assert not taken.records or taken.data.startswith(name.encode().ljust(100, b"\0") + b"0000644\0")
    fast = packed(tree, tmp_path / "fast" / "d")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d") == fast
    with tarfile.open(fileobj=io.BytesIO(fast["d-000000.tar"])) as tar:
        assert {name, name.replace(".jpg", ".cls")} <= set(tar.getnames())


def test_bad_files_are_left_out_with_the_same_words(
    odd_tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes]
) -> None:
    whole = draw_image(11)
    for name, data in {
        "cut.jpg": whole[:-300],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html></html>",
        "no-frame.jpg": b"\xff\xd8\xff\xda" + bytes(50) + b"\xff\xd9",
        "no-pixels.jpg": whole.replace(b"\xff\xc0\x00\x11\x08\x00\x1e", b"\xff\xc0\x00\x11\x08\x00\x00"),
    }.items():
        (odd_tree / "blue" / name).write_bytes(data)
    fast = packed(odd_tree, tmp_path / "fast" / "d", on_error="skip")
    in_python()
    assert packed(odd_tree, tmp_path / "slow" / "d", on_error="skip") == fast
    assert fast["d.skipped.json"].count(b'"path"') == 5


def test_both_ways_take_and_refuse_the_same_odd_jpegs(
    tree: Path, tmp_path: Path, in_python: Callable[[], None]
) -> None:
    files = {**STRAY, **NO_END, **NOT_DECODED, "4:4:1": of_441(), "lossless": lossless(48, 64)}
    files["many scans"] = photo(progressive=True) + b"\xff\xda" * (MAX_SCANS + 1) + EOI
    files["progressive"] = photo(progressive=True)
    for name, data in files.items():
        (tree / "blue" / f"{name.replace(' ', '-')}.jpg").write_bytes(data)
    fast = packed(tree, tmp_path / "fast" / "d", on_error="skip")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d", on_error="skip") == fast
    assert fast["d.skipped.json"].count(b'"path"') == len(NOT_DECODED) + 1


def gatherer(tree: Path, names: list[str], sizes: list[int] | None = None) -> Gatherer:
    paths = [os.fsencode(name) for name in names]
    keys = [name.rpartition(".")[0] for name in names]
    lengths = sizes or [(tree / name).stat().st_size for name in names]
    return Gatherer(os.fsencode(tree) + b"/", paths, keys, ["jpg"] * len(names), [1] * len(names), lengths)


def test_it_stops_before_a_file_that_has_grown_or_shrunk_or_gone(tree: Path) -> None:
    names = ["blue/0000.jpg", "blue/0001.jpg", "blue/0002.jpg"]
    sizes = [(tree / name).stat().st_size for name in names]
    for change in (1, -1):
        found = gatherer(tree, names, [sizes[0], sizes[1] - change, sizes[2]]).take(0)
        assert len(found.records) == 1
    (tree / names[1]).unlink()
    assert len(gatherer(tree, names, sizes).take(0).records) == 1
    assert gatherer(tree, names, sizes).take(1).records == []
    assert len(gatherer(tree, names, sizes).take(2).records) == 1


def test_it_stops_where_its_buffer_is_full(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"red/000{number}.jpg" for number in range(7)]
    monkeypatch.setattr(fast_write, "BUFFER_BYTES", 9000)
    files = gatherer(tree, names)
    taken = 0
    while taken < len(names):
        found = files.take(taken)
        assert 1 <= len(found.records) < len(names)
        assert len(found.data) <= 9000
        taken += len(found.records)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tree: Path) -> None:
    os.mkfifo(tree / "red" / "pipe.jpg")
    assert gatherer(tree, ["red/pipe.jpg"], [100]).take(0).records == []


@pytest.mark.parametrize("arguments", [(0, 3), (-1, 1), (2, 1)])
def test_numbers_outside_the_lists_are_refused(arguments: tuple[int, int]) -> None:
    lists = ([b"a"], [b"a"], [b".jpg"], [b"1"], [10])
    with pytest.raises(ValueError, match="within the lists"):
        fast_write.extension().gather(bytes(512), b"", *lists, *arguments, 1000, MAX_SCANS, bytearray(5000))


def test_lists_of_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        fast_write.extension().gather(
            bytes(512), b"", ["a"], [b"a"], [b".jpg"], [b"1"], [10], 0, 1, 9, 9, bytearray(5000)
        )
    with pytest.raises(ValueError, match="negative size"):
        fast_write.extension().gather(
            bytes(512), b"", [b"a"], [b"a"], [b".jpg"], [b"1"], [-1], 0, 1, 9, 9, bytearray(5000)
        )
