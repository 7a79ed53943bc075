"""A report's near-duplicates, odd images and label hints, from the index's quality columns or from a class tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from images.photos import HEIGHT, WIDTH, photo
from PIL import Image, ImageFilter

import shardkit
from shardkit.cli.main import run
from shardkit.images.quality import duplicates
from shardkit.tools.report import near as module
from shardkit.tools.report.near import VOTERS

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ of classes a and b: eight images, changed copies of some, and odd ones."""
    root = tmp_path_factory.mktemp("near")
    images = [photo(seed) for seed in range(8)]

    def put(name: str, image: Image.Image, **options: Any) -> None:
        path = root / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **{"quality": 90} | options)

    for number, image in enumerate(images):
        put(f"train/{'ab'[number % 2]}/{number}", image)
    put("train/a/0-half", images[0].resize((WIDTH // 2, HEIGHT // 2)))
    put("train/a/0-q30", images[0], quality=30)
    put("train/a/1-gray", images[1].convert("L"))  # of class b
    put("test/a/2-crop", images[2].crop((8, 6, WIDTH - 8, HEIGHT - 7)))
    put("test/b/4-q40", images[4], quality=40)  # of class a
    put("test/b/other", photo(100))
    (root / "test/a/6.jpg").write_bytes((root / "train/a/6.jpg").read_bytes())
    put("train/b/dark", photo(101).point(lambda value: value // 50))
    put("train/b/bright", photo(102).point(lambda value: 250 + value // 60))
    put("train/b/blurred", photo(103).filter(ImageFilter.GaussianBlur(30)))
    spot = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    spot.paste((255, 255, 255), (0, 0, 40, 40))
    put("train/b/flat", spot, quality=100)
    return root


@pytest.fixture(scope="module")
def packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    shardkit.pack(tree, root, quality_columns=True, workers=1)
    return root


NEAR = {frozenset({"a/0", "a/0-half", "a/0-q30"}), frozenset({"a/1-gray", "b/1"})}


@pytest.mark.parametrize("shards", [True, False], ids=["shards", "tree"])
def test_changed_copies_are_found_within_a_dataset_and_in_its_other_split(
    shards: bool, packed: Path, tree: Path, tmp_path: Path
) -> None:
    source = (packed if shards else tree) / "train"
    result = shardkit.report(str(source), tmp_path / "report.html")
    (found,) = result.datasets
    assert found.near_duplicates is not None
    assert {frozenset(group) for group in found.near_duplicates} == NEAR
    assert found.near_mislabelled == 1
    (leak,) = result.leaks
    assert leak.images == (("a/6", "a/6"),)  # equal, so not nearly equal too
    assert leak.near is not None
    assert dict(leak.near) == {"a/2": "a/2-crop", "a/4": "b/4-q40"}


def test_dark_bright_blurred_and_flat_images_are_listed(packed: Path, tmp_path: Path) -> None:
    (found,) = shardkit.report(str(packed / "train"), tmp_path / "report.html").datasets
    assert found.dark == ("b/dark",)
    assert found.bright == ("b/bright",)
    assert found.blurred[0] == "b/blurred"  # the drawn ones are not sharp either
    assert "b/flat" in found.flat


def test_the_page_shows_the_pictures_side_by_side(packed: Path, tmp_path: Path) -> None:
    shardkit.report(str(packed / "train"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    section = page.partition('<section id="near"')[2].partition("</section>")[0]
    assert section.count("<img") == sum(map(len, NEAR)) + 2 * 2
    assert "Under different classes: 1." in section
    looks = page.partition('<section id="looks"')[2].partition("</section>")[0]
    assert "1 image is dark" in looks
    assert '<a class="bad" href="#near">2 images of train nearly equal to one of test</a>' in page


def test_without_quality_columns_the_page_says_how_to_get_them(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shardkit.pack(tree / "train", tmp_path / "plain", workers=1)
    result = shardkit.report(str(tmp_path / "plain"), tmp_path / "report.html")
    assert result.datasets[0].near_duplicates is None
    assert "shardkit index --overwrite --quality-columns" in (tmp_path / "report.html").read_text("utf-8")
    assert run(["report", str(tmp_path / "plain"), "--out", str(tmp_path / "again.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["near_duplicates"] is None


def test_the_command_counts_what_looks_alike(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(packed / "train"), "--out", str(tmp_path / "report.html")]) == 0
    said = capsys.readouterr().out
    assert "  2 images of train nearly equal to one of test\n" in said
    assert "3 nearly equal to another one, 1 group of near-duplicates with different labels" in said


def test_an_image_that_is_gone_is_not_compared(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> None:
        raise ValueError("not decoded")

    monkeypatch.setattr(module, "grid_of", fail)
    (found,) = shardkit.report(str(packed / "train"), tmp_path / "report.html").datasets
    assert found.near_duplicates == ()


def test_what_was_not_compared_is_said(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_CONFIRMED", 1)
    (found,) = shardkit.report(str(packed / "train"), tmp_path / "report.html").datasets
    assert found.near_duplicates is not None
    assert len(found.near_duplicates) == 1
    assert "more pairs with similar hashes were not compared" in (tmp_path / "report.html").read_text("utf-8")


def test_a_label_that_most_similar_images_do_not_have_is_a_hint(tmp_path: Path) -> None:
    image = photo(7)
    for number in range(VOTERS + 1):
        for name, label in (("right", "a"), *((("wrong", "b"),) if number == 0 else ())):
            path = tmp_path / "tree" / label / f"{name}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=60 + number + 10 * (label == "b"))
    (found,) = shardkit.report(str(tmp_path / "tree"), tmp_path / "report.html").datasets
    assert found.label_hints == (("b/wrong0", "a"),)
    assert "This is a hint, no more" in (tmp_path / "report.html").read_text("utf-8")
