"""Progressive JPEGs are counted among some images of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from shardkit import info, pack
from shardkit.cli.main import run
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
