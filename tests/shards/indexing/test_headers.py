"""Shards in a store are indexed by their headers, with the rows that reading all of them gives."""

from __future__ import annotations

import tarfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards.indexing.in_store import Members, indexed, put, tar_of

from shardkit.formats.protocol import PEEKED_BYTES
from shardkit.formats.tar.headers import BLOCK
from shardkit.storage.ranged import GAP_BYTES
from shardkit.storage.windows import FIRST_BYTES, MOST_BYTES


def padded(image: bytes, size: int) -> bytes:
    """A JPEG with bytes after its end, which decoders ignore."""
    return image + bytes(max(0, size - len(image)))


LAYOUTS: dict[str, list[tuple[str, str]]] = {
    "cls": [("jpg", "image"), ("cls", "label")],
    "cls first": [("cls", "label"), ("jpg", "image")],
    "image alone": [("jpeg", "image")],
    "img2dataset": [("jpg", "image"), ("json", "json"), ("txt", "text")],
    "dots in names": [("seg.png", "image"), ("jpg", "image"), ("meta.json", "json")],
    "capitals": [("JPG", "image"), ("CLS", "label")],
}


def members_of(layout: str, image: bytes, count: int = 12, size: int = 100_000, folder: str = "") -> Members:
    content = {"image": padded(image, size), "text": b"a caption", "json": b'{"a": "' + b"x" * 900 + b'"}'}
    return [
        (f"{folder}{n:05}.{field}", b"%d" % (n % 3) if kind == "label" else content[kind])
        for n in range(count)
        for field, kind in LAYOUTS[layout]
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "a/b/", "long/" * 60])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_headers_give_the_rows_that_the_whole_shard_gives(
    layout: str, folder: str, format: int, draw_image: Any
) -> None:
    if format == tarfile.USTAR_FORMAT and len(folder) > 200:
        folder = folder[:200]
    place = put(tar_of(members_of(layout, draw_image(), folder=folder), format))
    assert indexed(place, whole=False) == indexed(place, whole=True)


@pytest.mark.parametrize(("layout", "share"), [("cls", 0.02), ("image alone", 0.015), ("img2dataset", 0.04)])
def test_little_is_read_of_large_images(
    layout: str, share: float, ranges: list[tuple[int, int]], draw_image: Any
) -> None:
    data = tar_of(members_of(layout, draw_image(), count=200))
    place = put(data)
    indexed(place, whole=False)
    assert sum(end - start for start, end in ranges) <= share * len(data)
    assert len(ranges) <= 200 + 16  # one for each image


@pytest.mark.parametrize("size", [2_000, 10_000, GAP_BYTES // 2])
def test_small_images_are_read_through_in_large_pieces(
    size: int, ranges: list[tuple[int, int]], draw_image: Any
) -> None:
    data = tar_of(members_of("cls", draw_image(), count=20_000_000 // size, size=size))
    indexed(put(data), whole=False)
    assert len(ranges) <= len(data) / MOST_BYTES + 12 + sum(range(3))
    assert sum(end - start for start, end in ranges) <= len(data) + FIRST_BYTES


@pytest.mark.parametrize(("kind", "side"), [("JPEG", 40), ("PNG", 40), ("WEBP", 40), ("GIF", 40), ("BMP", 40)])
def test_the_sizes_of_images_are_in_their_first_bytes(kind: str, side: int, draw_image: Any) -> None:
    image = draw_image(size=(side, side + 3), format=kind)
    place = put(tar_of([("a.jpg" if kind == "JPEG" else f"a.{kind.lower()}", image)]))
    numbers = indexed(place, whole=False)[-1]
    assert (numbers["width"], numbers["height"]) == ([side], [side + 3])


def test_a_size_behind_metadata_is_not_looked_for(draw_image: Any) -> None:
    image = draw_image()
    note = b"\xff\xe1" + (PEEKED_BYTES + 2).to_bytes(2, "big") + bytes(PEEKED_BYTES)
    numbers = indexed(put(tar_of([("a.jpg", image[:2] + note + image[2:])])), whole=False)[-1]
    assert (numbers["width"], numbers["height"]) == ([0], [0])


@pytest.mark.parametrize("cut", [1, BLOCK, 2 * BLOCK, 3 * BLOCK + 7, 150_000])
def test_a_cut_shard_is_the_same_error(cut: int, draw_image: Any) -> None:
    data = tar_of(members_of("cls", draw_image(), count=3))
    end = len(data.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK  # of the last member
    place = put(data[: end + 2 * BLOCK - cut])
    found = indexed(place, whole=False)
    assert len(found) == 3 and found == indexed(place, whole=True)


names = st.sampled_from(["a", "b", "c", "x/a", "x/b.c", ".hidden", "__meta__", "no_dot"])
fields = st.sampled_from(["jpg", "png", "cls", "json", "JPG", "a.b.txt"])
sizes = st.sampled_from([0, 1, 511, 512, 513, 5_000, 60_000])


@given(st.lists(st.tuples(names, fields, sizes, st.booleans()), max_size=12), st.integers(0, 2), st.integers(0, 3000))
def test_any_order_of_members_gives_the_same_rows_or_error(
    members: list[tuple[str, str, int, bool]], format: int, cut: int
) -> None:
    data = tar_of(
        [(f"{key}.{field}", b"7" * size if digit else b"?" * size) for key, field, size, digit in members], format
    )
    place = put(data[: len(data) - cut] or b"\0")
    assert indexed(place, whole=False) == indexed(place, whole=True)


@given(st.integers(0, 2**32))
def test_a_damaged_header_is_the_same_error(seed: int) -> None:
    data = bytearray(tar_of([(f"{n}.jpg", b"x" * 40_000) for n in range(4)]))
    rng = np.random.default_rng(seed)
    header = int(rng.integers(4)) * (BLOCK + 40_448)
    data[header + int(rng.integers(BLOCK))] ^= 1 << int(rng.integers(8))
    place = put(bytes(data))
    assert indexed(place, whole=False) == indexed(place, whole=True)
