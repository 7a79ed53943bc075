"""The packer's fast way in C gives the bytes, index rows and errors of the way in Python."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from images.jpegs import EOI, lossless, of_441, photo
from images.test_jpeg import NO_END, NOT_DECODED, STRAY

import shardkit
from shardkit.checksums import crc32c
from shardkit.formats.columns import Strings, fields_of, int64s
from shardkit.formats.format import FORMATS
from shardkit.formats.tar import fast_write
from shardkit.formats.tar.fast_write import Gatherer, PlainFiles
from shardkit.images.jpeg import MAX_SCANS
from shardkit.images.png import HEAD as PNG_HEAD

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


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_both_ways_write_the_same_bytes(
    odd_tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], form: str
) -> None:
    for number in range(300):
        (odd_tree / "blue" / f"more{number}.jpg").write_bytes(draw_image(number, size=(9 + number % 50, 20)))
    fast = packed(odd_tree, tmp_path / "fast" / "d", max_bytes="1MiB", format=form)
    in_python()
    assert packed(odd_tree, tmp_path / "slow" / "d", max_bytes="1MiB", format=form) == fast
    assert len(fast) > 4
    assert shardkit.verify(tmp_path / "fast" / "d").sound


def test_texts_of_a_record_are_escaped_as_in_python(
    tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes]
) -> None:
    (tree / "grün").mkdir()
    (tree / "grün" / "back\\slash.jpg").write_bytes(draw_image(1))
    (tree / "grün" / ("é" * 90 + ".jpg")).write_bytes(draw_image(2))
    with open(os.path.join(os.fsencode(tree), "grün".encode(), b"caf\xe9.jpe"), "wb") as file:
        file.write(draw_image(3))
    fast = packed(tree, tmp_path / "fast" / "d", format="tfrecord")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d", format="tfrecord") == fast


@pytest.mark.parametrize("size", [127, 128, 16383, 16384, 200_000])
def test_a_record_is_the_same_around_each_length_of_a_varint(
    tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], size: int
) -> None:
    """A comment in the JPEG makes it as long; the least is that of a drawn image."""
    whole = draw_image(1, size=(8, 8))
    fill = max(0, size - len(whole) - 4)
    pieces = [
        b"\xff\xfe" + (n + 2).to_bytes(2, "big") + bytes(n) for n in [60_000] * (fill // 60_004) + [fill % 60_004]
    ]
    for number in range(3):
        (tree / "blue" / f"long{number}.jpg").write_bytes(whole[:2] + b"".join(pieces)[number:] + whole[2:])
    (tree / "blue" / "long0.jpg").write_bytes(whole[:2] + b"".join(pieces) + whole[2:])
    fast = packed(tree, tmp_path / "fast" / "d", format="tfrecord", on_error="skip")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d", format="tfrecord", on_error="skip") == fast


@pytest.mark.parametrize("name_bytes", [99, 100, 101])
def test_a_name_around_the_100_bytes_of_ustar_is_written_as_in_python(
    tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], name_bytes: int
) -> None:
    name = "blue/" + "n" * (name_bytes - len("blue/.jpg")) + ".jpg"
    (tree / name).write_bytes(draw_image(3))
    found, data = written(tree, [name])
    assert found == [name_bytes <= 100]
    assert not data or data.startswith(name.encode().ljust(100, b"\0") + b"0000644\0")
    fast = packed(tree, tmp_path / "fast" / "d")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d") == fast
    with tarfile.open(fileobj=io.BytesIO(fast["d-000000.tar"])) as tar:
        assert {name, name.replace(".jpg", ".cls")} <= set(tar.getnames())


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_bad_files_are_left_out_with_the_same_words(
    odd_tree: Path, tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], form: str
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
    fast = packed(odd_tree, tmp_path / "fast" / "d", on_error="skip", format=form)
    in_python()
    assert packed(odd_tree, tmp_path / "slow" / "d", on_error="skip", format=form) == fast
    assert fast["d.skipped.json"].count(b'"path"') == 5


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_both_ways_take_and_refuse_the_same_odd_jpegs(
    tree: Path, tmp_path: Path, in_python: Callable[[], None], form: str
) -> None:
    files = {**STRAY, **NO_END, **NOT_DECODED, "4:4:1": of_441(), "lossless": lossless(48, 64)}
    files["many scans"] = photo(progressive=True) + b"\xff\xda" * (MAX_SCANS + 1) + EOI
    files["progressive"] = photo(progressive=True)
    for name, data in files.items():
        (tree / "blue" / f"{name.replace(' ', '-')}.jpg").write_bytes(data)
    fast = packed(tree, tmp_path / "fast" / "d", on_error="skip", format=form)
    in_python()
    assert packed(tree, tmp_path / "slow" / "d", on_error="skip", format=form) == fast
    assert fast["d.skipped.json"].count(b'"path"') == len(NOT_DECODED) + 1


def gatherer(tree: Path, names: list[str], sizes: list[int] | None = None) -> Gatherer:
    paths = Strings.of(map(os.fsencode, names))
    keys = Strings.of_texts([name.rpartition(".")[0] for name in names])
    lengths = sizes or [(tree / name).stat().st_size for name in names]
    fields = fields_of(Strings.of(b"png" if name.endswith(".png") else b"jpg" for name in names))
    files = PlainFiles(paths, keys, fields, numbers([1] * len(names)), numbers(lengths))
    return Gatherer(os.fsencode(tree), files)


def numbers(values: list[int]) -> bytes:
    return array("q", values).tobytes()


def written(tree: Path, names: list[str], sizes: list[int] | None = None) -> tuple[list[bool], bytes]:
    """(whether the extension writes each file, what it writes), one call after another."""
    files, found, start, crc = gatherer(tree, names, sizes), list[bool](), 0, 0
    with tempfile.TemporaryFile() as file:
        while start < len(names):
            some = files.write(start, file.fileno(), file.tell(), crc)
            if some is None:
                found.append(False)
                start += 1
                continue
            assert int64s(some.offsets)[0] == file.seek(0, os.SEEK_END) - some.size
            found += [True] * some.count
            start, crc = start + some.count, some.crc
        files.close()
        file.seek(0)
        data = file.read()
    assert crc == crc32c(data)
    return found, data


def test_it_leaves_a_file_that_has_grown_or_shrunk_or_gone(tree: Path) -> None:
    names = ["blue/0000.jpg", "blue/0001.jpg", "blue/0002.jpg"]
    sizes = [(tree / name).stat().st_size for name in names]
    for change in (1, -1):
        assert written(tree, names, [sizes[0], sizes[1] - change, sizes[2]])[0] == [True, False, True]
    (tree / names[1]).unlink()
    assert written(tree, names, sizes)[0] == [True, False, True]


@pytest.mark.parametrize(("name", "value"), [("BUFFER_BYTES", 9000), ("CALL_BYTES", 9000), ("MOST_FILES", 2)])
def test_the_samples_are_the_same_in_pieces_of_any_size(
    tree: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    names = [f"red/000{number}.jpg" for number in range(7)]
    whole = written(tree, names)
    assert whole[0] == [True] * len(names)
    monkeypatch.setattr(fast_write, name, value)
    assert written(tree, names) == whole


def test_a_file_larger_than_the_buffer_is_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_write, "BUFFER_BYTES", 1000)
    assert written(tree, ["red/0000.jpg"]) == ([False], b"")


def test_all_files_are_left_if_the_folder_is_gone(tree: Path) -> None:
    assert written(tree / "nowhere", ["red/0000.jpg"], [1000]) == ([False], b"")


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tree: Path) -> None:
    os.mkfifo(tree / "red" / "pipe.jpg")
    assert written(tree, ["red/pipe.jpg"], [100])[0] == [False]


@pytest.mark.parametrize("path", [b"", b"/etc/passwd", b"red/0000.jpg\0"])
def test_a_path_that_is_not_below_the_folder_is_left(tree: Path, path: bytes) -> None:
    [size] = [(tree / "red" / "0000.jpg").stat().st_size]
    columns = PlainFiles(
        Strings.of([path]), Strings.of([b"key"]), fields_of(Strings.of([b"jpg"])), numbers([0]), numbers([size])
    )
    files = Gatherer(os.fsencode(tree), columns)
    with tempfile.TemporaryFile() as file:
        assert files.write(0, file.fileno(), 0, 0) is None
    files.close()


def test_an_output_that_cannot_be_written_is_an_error(tree: Path) -> None:
    files = gatherer(tree, ["red/0000.jpg"])
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        files.write(0, full.fileno(), 0, 0)
    files.close()


A = (b"a", numbers([0, 1]))
ONE = {"paths": A, "keys": A, "places": bytes(4), "fields": (b"jpg",), "labels": numbers([1]), "sizes": numbers([10])}


def native_write(columns: dict[str, Any], start: int, stop: int) -> None:
    each = (ONE | columns).values()
    fast_write.extension().write(-1, 0, 0, -1, bytes(512), *each, start, stop, 1000, 1000, MAX_SCANS, 5000)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (-1, 1), (2, 1)])
def test_numbers_outside_the_columns_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="within the columns"):
        native_write({}, start, stop)


@pytest.mark.parametrize(
    ("name", "short"), [("places", b""), ("labels", bytes(7)), ("sizes", b""), ("keys", (b"", bytes(8)))]
)
def test_a_column_that_is_too_short_is_refused(name: str, short: object) -> None:
    with pytest.raises(ValueError, match="within the columns"):
        native_write({name: short}, 0, 1)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("sizes", numbers([-1])),
        ("labels", numbers([-1])),
        ("paths", (b"a", numbers([0, 2]))),
        ("keys", (b"a", numbers([-1, 1]))),
        ("keys", (b"a", numbers([1, 0]))),
        ("places", b"\1\0\0\0"),
        ("places", b"\xff\xff\xff\xff"),
        ("fields", ()),
    ],
)
def test_columns_with_numbers_that_can_not_be_are_refused(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match="a negative number, or an offset or a place that is not there"):
        native_write({name: bad}, 0, 1)


@pytest.mark.parametrize(
    ("name", "other"), [("paths", [b"a"]), ("keys", b"a"), ("fields", ("jpg",)), ("sizes", [10]), ("paths", (1, 2))]
)
def test_columns_of_other_things_are_refused(name: str, other: object) -> None:
    with pytest.raises(TypeError):
        native_write({name: other}, 0, 1)


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG."""
    own = zlib.crc32(name + data) if crc is None else crc
    return len(data).to_bytes(4, "big") + name + data + own.to_bytes(4, "big")


def png(*chunks: bytes, ihdr: bytes = bytes((0, 0, 0, 4, 0, 0, 0, 3, 8, 0, 0, 0, 0)), crc: int | None = None) -> bytes:
    """A PNG of these chunks between its header and its end."""
    return PNG_HEAD + chunk(b"IHDR", ihdr, crc) + b"".join(chunks) + chunk(b"IEND", b"")


PIXELS = chunk(b"IDAT", zlib.compress(bytes(15)))

PNGS: dict[str, tuple[bytes, bool]] = {
    "plain": (png(PIXELS), True),
    "notes before the pixels": (png(chunk(b"gAMA", b"1234"), chunk(b"tEXt", b"a\0b", 7), PIXELS), True),
    "a palette": (png(chunk(b"PLTE", bytes(768)), chunk(b"tRNS", b"12"), PIXELS), True),
    "a bad palette": (png(chunk(b"PLTE", bytes(768), 5), PIXELS), False),
    "a long palette": (png(chunk(b"PLTE", bytes(900)), PIXELS), False),
    "a bad header": (png(PIXELS, crc=1), False),
    "no pixels": (png(chunk(b"gAMA", b"1234")), False),
    "two headers": (png(chunk(b"IHDR", bytes(13)), PIXELS), False),
    "bytes after the end": (png(PIXELS) + b"more", False),
    "no end": (png(PIXELS)[:-12], False),
    "cut in a chunk": (png(chunk(b"tEXt", bytes(100)))[:80], False),
    "a chunk that is too long": (png(b"\xff\xff\xff\xffgAMA" + bytes(8), PIXELS), False),
    "no width": (png(PIXELS, ihdr=bytes((0, 0, 0, 0, 0, 0, 0, 3, 8, 0, 0, 0, 0))), False),
    "too many pixels": (png(PIXELS, ihdr=bytes((0x7F, 0, 0, 0, 0x7F, 0, 0, 3, 8, 0, 0, 0, 0))), False),
    "3 bits": (png(PIXELS, ihdr=bytes((0, 0, 0, 4, 0, 0, 0, 3, 3, 0, 0, 0, 0))), False),
    "4 bits of colours": (png(PIXELS, ihdr=bytes((0, 0, 0, 4, 0, 0, 0, 3, 4, 2, 0, 0, 0))), False),
    "interlaced": (png(PIXELS, ihdr=bytes((0, 0, 0, 4, 0, 0, 0, 3, 8, 0, 0, 0, 1))), True),
    "another packing": (png(PIXELS, ihdr=bytes((0, 0, 0, 4, 0, 0, 0, 3, 8, 0, 1, 0, 0))), False),
    "a JPEG": (photo(), False),
    "empty": (b"", False),
}


@pytest.mark.parametrize("content", PNGS.values(), ids=PNGS)
def test_a_png_is_written_natively_only_where_python_takes_it_too(
    content: tuple[bytes, bool], tree: Path, tmp_path: Path, in_python: Callable[[], None]
) -> None:
    data, plain = content
    (tree / "blue" / "x.png").write_bytes(data)
    found, _ = written(tree, ["blue/x.png"])
    assert found == [plain]
    fast = packed(tree, tmp_path / "fast" / "d", on_error="skip")
    in_python()
    assert packed(tree, tmp_path / "slow" / "d", on_error="skip") == fast


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_tree_of_pngs_is_written_as_in_python(
    tmp_path: Path, in_python: Callable[[], None], draw_image: Callable[..., bytes], form: str
) -> None:
    for number in range(120):
        mode = ["RGB", "L", "P", "RGBA", "1", "LA"][number % 6]
        path = tmp_path / "pngs" / f"c{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        is_png = number % 10 != 9
        path.write_bytes(draw_image(number, format="PNG", mode=mode) if is_png else draw_image(number))
    found, _ = written(tmp_path / "pngs", [f"c{n % 3}/{n}.png" for n in range(120)])
    assert sum(found) == 108
    fast = packed(tmp_path / "pngs", tmp_path / "fast" / "d", format=form)
    in_python()
    assert packed(tmp_path / "pngs", tmp_path / "slow" / "d", format=form) == fast
    assert shardkit.verify(tmp_path / "fast" / "d", decode=True).sound
