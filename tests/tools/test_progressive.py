"""Progressive JPEGs are counted among some images of a dataset."""

from __future__ import annotations

import io
from array import array
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from msgspec.structs import replace

import shardkit
from shardkit import info, pack
from shardkit.cli.main import run
from shardkit.images import jpeg
from shardkit.images.jpeg import count_progressive, is_progressive
from shardkit.native import load
from shardkit.shards.manifest import JPEGS
from shardkit.tools.progressive import LOOKED_AT, JpegKinds, jpeg_kinds


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A tree of 3 baseline and 1 progressive JPEGs, a PNG and a damaged JPEG."""
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    for number in range(4):
        image.save(folder / f"{number}.jpg", progressive=number == 1)
    image.save(folder / "5.png")
    (folder / "6.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "tree"


def test_progressive_jpegs_are_counted_in_a_tree_and_in_shards(mixed: Path, tmp_path: Path) -> None:
    assert jpeg_kinds(mixed) == JpegKinds(4, 1, whole=True)
    pack(mixed, tmp_path / "train", workers=1, on_error="skip")
    assert jpeg_kinds(tmp_path / "train") == JpegKinds(4, 1, whole=True)
    found = info(tmp_path / "train")
    assert (found.jpegs, found.progressive) == (4, 1)


def encoded(progressive: bool) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "JPEG", progressive=progressive)
    return file.getvalue()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree with more images than are looked at, of which the second is progressive."""
    folder = tmp_path / "large" / "cat"
    folder.mkdir(parents=True)
    for number in range(LOOKED_AT + 40):
        (folder / f"{number:03}.jpg").write_bytes(encoded(number == 1))
    return tmp_path / "large"


COUNTED = JpegKinds(LOOKED_AT + 40, 1, whole=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "tfrecord"}, {"max_count": 30}, {"images": shardkit.Images(strip=True)}],
    ids=["tar", "tfrecord", "several shards", "without metadata"],
)
def test_packing_counts_all_of_them(large: Path, tmp_path: Path, options: dict[str, object]) -> None:
    pack(large, tmp_path / "train", **options)  # type: ignore[arg-type]
    assert jpeg_kinds(tmp_path / "train") == COUNTED
    found = info(tmp_path / "train")
    assert (found.jpegs, found.progressive) == (COUNTED.jpegs, 1)


def test_without_the_c_extension_the_count_is_the_same(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg, "load", lambda name: (None, "not built"))
    pack(large, tmp_path / "train", workers=1)
    assert jpeg_kinds(tmp_path / "train") == COUNTED


def test_a_dataset_without_progressive_jpegs_says_nothing_of_them(draw_tree: object, tmp_path: Path) -> None:
    assert callable(draw_tree)
    manifest = pack(draw_tree(tmp_path / "tree", {"red": 3}), tmp_path / "train").manifest
    assert JPEGS not in manifest.options
    assert manifest.jpegs is None


def test_a_writer_counts_them(tmp_path: Path) -> None:
    with shardkit.ShardWriter(tmp_path / "train") as writer:
        for number in range(LOOKED_AT + 40):
            writer.write({"__key__": f"{number}", "jpg": encoded(number == 1), "cls": 0})
    assert jpeg_kinds(tmp_path / "train") == COUNTED


def test_additions_are_counted_with_the_rest(large: Path, tmp_path: Path) -> None:
    pack(large, tmp_path / "train")
    (large / "cat" / "more.jpg").write_bytes(encoded(True))
    pack(large, tmp_path / "train", append=True)
    assert jpeg_kinds(tmp_path / "train") == JpegKinds(COUNTED.jpegs + 1, 2, whole=True)


def test_merged_datasets_have_those_of_all(large: Path, tmp_path: Path) -> None:
    pack(large, tmp_path / "a")
    for path in (large / "cat").iterdir():
        path.rename(path.with_name(f"b{path.name}"))
    pack(large, tmp_path / "b")
    shardkit.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert jpeg_kinds(tmp_path / "all") == JpegKinds(2 * COUNTED.jpegs, 2, whole=True)


def test_after_a_deletion_some_images_are_looked_at(large: Path, tmp_path: Path) -> None:
    pack(large, tmp_path / "train")
    shardkit.delete(tmp_path / "train", ["cat/001"])
    assert jpeg_kinds(tmp_path / "train") == JpegKinds(LOOKED_AT, 0)


def test_a_damaged_count_in_a_manifest_is_not_used(large: Path, tmp_path: Path) -> None:
    manifest = pack(large, tmp_path / "train").manifest
    for wrong in (7, {}, {"all": "9", "progressive": 1}):
        assert replace(manifest, options=manifest.options | {JPEGS: wrong}).jpegs is None


@pytest.mark.skipif(load("gather")[0] is None, reason="the C extension was not built")
def test_headers_are_read_alike_in_c_and_in_python() -> None:
    plain, other = encoded(False), encoded(True)
    rest = plain[2:]
    begun = [
        b"\xff",
        b"abc",
        b"\xff\xd0",
        b"\xff\xfe\0\1",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\x02\0\2",
        b"\xff\xe5\xff\xff",
    ]
    images = [
        plain, other, b"", b"\xff\xd8", plain[:30], other[:200], b"\x89PNG\r\n",
        *(b"\xff\xd8" + stray + rest for stray in begun), *(other[:n] for n in range(1, 700, 7)),
    ]  # fmt: skip
    for image in images:
        found = is_progressive(image)
        counted = count_progressive(image, array("q", [0]), array("q", [len(image)]))
        assert counted == (found is not None, found is True)
    data = b"".join(images)
    sizes = array("q", map(len, images))
    starts = array("q", [sum(sizes[:number]) for number in range(len(images))])
    starts.append(-1)
    sizes.append(-1)
    assert count_progressive(data, starts, sizes)[0] == sum(is_progressive(image) is not None for image in images)
    native = load("gather")[0]
    assert native.progressive(plain, array("q", [5, -3, 0]), array("q", [1 << 40, 1, -1])) == (0, 0, [])
    with pytest.raises(ValueError, match="do not fit"):
        native.progressive(plain, array("q", [0, 0]), array("q", [1]))


def test_only_some_images_of_a_large_dataset_are_read(draw_tree: object, tmp_path: Path) -> None:
    assert callable(draw_tree)
    tree = draw_tree(tmp_path / "tree", {"red": LOOKED_AT * 2})
    assert jpeg_kinds(tree) == JpegKinds(LOOKED_AT, 0)


def test_the_advice_says_how_many_and_what_to_do() -> None:
    assert JpegKinds(0, 0).advice == JpegKinds(9, 0).advice == ""
    assert JpegKinds(64, 16).advice.startswith(
        "an estimated 25% of the JPEGs are progressive (16 of 64 that were looked at): 'shardkit pack --bas"
    )
    assert JpegKinds(9, 3, whole=True).advice.startswith("3 of the 9 JPEGs are progressive: 'shardkit pack --bas")


def test_a_report_says_it_in_its_summary_and_on_its_page(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    pack(mixed, tmp_path / "train", workers=1, on_error="skip")
    assert run(["report", str(tmp_path / "train"), "--out", str(page)]) == 0
    assert "1 of the 4 JPEGs are progressive" in capsys.readouterr().out
    assert page.read_text("utf-8").count("1 of the 4 JPEGs are progressive") == 1


def test_info_and_the_summary_of_a_pack_say_it_once(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = str(tmp_path / "train")
    assert run(["pack", str(mixed), dest, "--workers", "1", "--on-error", "skip"]) == 0
    assert capsys.readouterr().out.count("1 of the 4 JPEGs are progressive") == 1
    assert run(["info", dest]) == 0
    assert capsys.readouterr().out.count("1 of the 4 JPEGs are progressive") == 1
    assert run(["pack", str(mixed), f"{dest}2", "--workers", "1", "--on-error", "skip", "--json"]) == 0
    assert "are progressive" not in capsys.readouterr().out
