from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from shardkit import Pictures, UsageError, dataset, pack
from shardkit.images.thumbnails import open_picture, thumbnail
from shardkit.tools.pictures import choose_samples
from shardkit.tools.view import (
    _DAMAGE,
    _GAP,
    _HEAD,
    _LINE,
    _TEXT,
    MAX_CLASSES,
    augmented_data,
    enlarged,
    fitted,
    two_lines,
    usual_side,
    view,
)


@pytest.fixture
def packed(tree: Path, tmp_path: Path) -> Path:
    """The tree of 5 blue and 7 red images of 40 x 30 pixels, packed."""
    pack(tree, tmp_path / "shards" / "train", workers=1)
    return tmp_path / "shards" / "train"


def test_a_sheet_has_random_samples_of_each_class_with_their_keys(packed: Path, tmp_path: Path) -> None:
    sheet = view(packed, tmp_path / "sheet.png", count=3)
    assert [(row.name, row.label, row.count, len(row.keys)) for row in sheet.classes] == [
        ("blue", 0, 5, 3),
        ("red", 1, 7, 3),
    ]
    keys = {sample["__key__"]: sample["cls"] for sample in dataset(packed)}
    assert all(keys[key] == row.label for row in sheet.classes for key in row.keys)
    with Image.open(sheet.path) as image:
        assert (image.format, image.size) == ("PNG", (sheet.width, sheet.height))


def test_the_pictures_are_the_samples_each_in_its_cell(packed: Path, tmp_path: Path) -> None:
    side = 80
    sheet = view(packed, tmp_path / "sheet.png", count=2, pictures=Pictures(side=side))
    drawn = np.asarray(Image.open(sheet.path).convert("RGB"))
    for number, row in enumerate(sheet.classes):
        top = _GAP + number * (_HEAD + _GAP + side + 2 * _LINE + _GAP + _GAP) + _HEAD + _GAP
        for column, key in enumerate(row.keys):
            picture = open_picture(bytes(dataset(packed)[key]["jpg"])).resize((80, 60), 0)
            left = _GAP + column * (side + _GAP)
            assert (drawn[top + side - 60 : top + side, left : left + 80] == np.asarray(picture)).all()


def test_the_seed_decides_which(packed: Path, tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> bytes:
        return Path(view(packed, tmp_path / name, count=2, seed=seed).path).read_bytes()

    assert drawn("a.png", 1) == drawn("b.png", 1) != drawn("c.png", 2)


def test_a_class_directory_is_shown_as_its_shards_are(packed: Path, tree: Path, tmp_path: Path) -> None:
    from_tree = view(tree, tmp_path / "tree.png", count=9)
    from_shards = view(packed, tmp_path / "shards.png", count=9)
    assert [sorted(row.keys) for row in from_tree.classes] == [sorted(row.keys) for row in from_shards.classes]


def test_augmented_pictures_are_those_of_training(packed: Path, tmp_path: Path) -> None:
    data = augmented_data(dataset(packed, seed=3), Pictures(size=32))
    assert np.array_equal(data[4]["jpg"], dataset(packed, seed=3).decode(size=32, crop="random", flip=True)[4]["jpg"])
    assert augmented_data(dataset(packed), Pictures(augmented=True))[0]["jpg"].shape == (30, 30, 3)
    assert augmented_data(plain := dataset(packed), Pictures()) is plain
    whole = view(packed, tmp_path / "p.png")
    sheet = view(packed, tmp_path / "a.png", pictures=Pictures(augmented=True))
    assert [row.keys for row in whole.classes] == [row.keys for row in sheet.classes]
    assert Path(whole.path).read_bytes() != Path(sheet.path).read_bytes()


def test_the_usual_side_is_224_at_most(draw_tree: Any, tmp_path: Path) -> None:
    for width, height, side in ((300, 226, 224), (224, 300, 224), (223, 300, 223)):
        tree = draw_tree(tmp_path / f"{width}", {"a": 2}, size=(width, height))
        pack(tree, tmp_path / "shards" / f"{width}", workers=1)
        assert usual_side(dataset(tmp_path / "shards" / f"{width}")) == side


def test_the_usual_side_is_the_shorter_one(packed: Path, tree: Path) -> None:
    assert usual_side(dataset(packed)) == 30
    assert usual_side(dataset(tree)) == 224  # a class directory has no index


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "sheet.jpg"}, "give one that ends with .png"),
        ({"classes": ["green"]}, "there is no class 'green'; the classes are 'blue', 'red'"),
        ({"classes": [2]}, "there is no class 2"),
        ({"count": 0}, "0 is out of range; give 1 to 100"),
    ],
)
def test_options_that_make_no_sense_are_refused(packed: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        view(packed, **{"out": packed.parent / "sheet.png", **options})
    assert not (packed.parent / "sheet.png").exists()


def test_classes_are_named_or_numbered_and_come_in_that_order(packed: Path, tmp_path: Path) -> None:
    sheet = view(packed, tmp_path / "sheet.png", classes=["1", "blue"])
    assert [row.name for row in sheet.classes] == ["red", "blue"]


def test_one_class_that_is_left_out_is_told_too(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shardkit.tools.view.MAX_CLASSES", 1)
    with caplog.at_level(logging.INFO, "shardkit.tools.view"):
        assert view(packed, tmp_path / "sheet.png").left_out == 1
    assert "1 more class is not shown; choose the ones to show with `classes`" in caplog.messages


def test_of_classes_that_are_named_none_is_left_out(packed: Path, tmp_path: Path) -> None:
    assert view(packed, tmp_path / "sheet.png", classes=["red"]).left_out == 0


def test_of_many_classes_an_even_part_is_shown_and_the_rest_told(
    draw_tree: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = draw_tree(tmp_path / "tree", {f"{n:02}": 1 for n in range(2 * MAX_CLASSES)}, size=(8, 8))
    with caplog.at_level(logging.INFO, "shardkit.tools.view"):
        sheet = view(tree, tmp_path / "sheet.png", pictures=Pictures(side=16))
    assert [row.name for row in sheet.classes] == [f"{n:02}" for n in range(0, 2 * MAX_CLASSES, 2)]
    assert sheet.left_out == MAX_CLASSES
    assert f"{MAX_CLASSES} more classes are not shown" in caplog.text


def test_an_image_that_is_damaged_has_its_reason_in_its_place(tree: Path, tmp_path: Path) -> None:
    (tree / "blue" / "0000.jpg").write_bytes(b"no image at all")
    for augmented in (False, True):
        sheet = view(tree, tmp_path / "sheet.png", classes=["blue"], pictures=Pictures(side=80, augmented=augmented))
        assert sheet.undecodable == ("blue/0000",)
        red = (np.asarray(Image.open(sheet.path).convert("RGB")) == _DAMAGE).all(axis=2)
        assert red.sum() > 4 * 80 - 4  # more than the frame alone


def test_the_reason_is_within_a_frame_of_the_size_of_a_picture(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tree / "blue").iterdir():
        path.write_bytes(b"no image at all")
    monkeypatch.setattr("shardkit.tools.view.fitted", lambda text, *_: "")
    side, count = 80, 3
    sheet = view(tree, tmp_path / "sheet.png", classes=["blue"], count=count, pictures=Pictures(side=side))
    red = (np.asarray(Image.open(sheet.path).convert("RGB")) == _DAMAGE).all(axis=2)
    top = _GAP + _HEAD + _GAP
    frame = np.zeros((side, side), bool)
    frame[[0, -1]] = frame[:, [0, -1]] = True
    for column in range(count):
        left = _GAP + column * (side + _GAP)
        cell = red[top : top + side, left : left + side]
        assert cell[frame].all()
        assert cell[4:-4, 4:-4].any()
        red[top : top + side, left : left + side] = False
    assert not red.any()


def test_the_lines_of_a_reason_are_below_each_other(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "blue" / "0000.jpg").write_bytes(b"no image at all")
    places: list[tuple[float, float]] = []
    draw = ImageDraw.ImageDraw.text

    def recorded(self: Any, at: tuple[float, float], text: str, fill: Any, *rest: Any) -> None:
        places.extend([at] if fill == _DAMAGE else [])
        draw(self, at, text, fill, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    view(tree, tmp_path / "sheet.png", classes=["blue"], pictures=Pictures(side=80))
    (x, y), *rest = places
    assert rest
    assert places == [(x, y + number * _LINE) for number in range(len(places))]


def test_the_count_of_a_class_stands_behind_its_name_on_the_same_line(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, tuple[float, float]] = {}
    draw = ImageDraw.ImageDraw.text

    def recorded(self: Any, at: tuple[float, float], text: str, *rest: Any) -> None:
        places[text] = at
        draw(self, at, text, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    view(packed, tmp_path / "sheet.png", pictures=Pictures(side=80))
    for title, count in (("0  blue", "   5 samples"), ("1  red", "   7 samples")):
        (left, top), (behind, below) = places[title], places[count]
        assert behind == left + ImageFont.load_default(_HEAD).getlength(title)
        assert top < below < top + _HEAD - _TEXT + 1  # smaller letters, as low


def test_names_of_any_kind_are_drawn(draw_tree: Any, tmp_path: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {"猫 $\\alpha$": 1, "a\nb\x1b[31m": 1, "x" * 200: 1}, size=(8, 8))
    assert len(view(tree, tmp_path / "sheet.png").classes) == 3


def test_samples_of_a_class_are_chosen_without_repeats(packed: Path) -> None:
    blue, red = choose_samples(dataset(packed), count=100, seed=0)
    assert sorted(blue.rows + red.rows) == list(range(12))


def test_a_small_image_is_enlarged_by_whole_factors_and_a_large_one_shrunk() -> None:
    assert enlarged(Image.new("RGB", (30, 20)), 100).size == (90, 60)
    assert enlarged(Image.new("RGB", (60, 60)), 100).size == (60, 60)
    assert thumbnail(Image.new("RGB", (1000, 500)), 100).size == (100, 50)
    assert thumbnail(Image.new("RGB", (10, 5)), 100).size == (10, 5)


@pytest.mark.parametrize(
    ("size", "kind"), [((1000, 100), "BOX"), ((100, 1000), "BOX"), ((401, 10), "BOX"), ((400, 300), "LANCZOS")]
)
def test_a_thumbnail_of_a_much_larger_image_is_averaged(size: tuple[int, int], kind: str) -> None:
    image = Image.effect_noise(size, 80).convert("RGB")
    expected = image.copy()
    expected.thumbnail((100, 100), Image.Resampling[kind])
    assert thumbnail(image, 100).tobytes() == expected.tobytes()


def test_a_gray_image_of_16_bits_is_shown_by_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert open_picture((tmp_path / "deep.png").read_bytes()).getpixel((0, 0)) == (128, 128, 128)


def test_text_that_is_too_wide_loses_its_middle() -> None:
    class Fixed:
        def getlength(self, text: str) -> int:
            return len(text)

    font: Any = Fixed()
    assert fitted("abcdef", 6, font) == "abcdef"
    assert fitted("abcdefghij", 6, font) == "a…ghij"
    assert fitted("abcdefghij", 1, font) == "…"
    font.getlength = lambda text: len(text) - 0.5 * text.count("…")  # a narrow one
    assert fitted("abcdefghij", 9.5, font) == "abc…efghij"
    font.getlength = len
    assert two_lines("abcdef", 4, font) == ["abcd", "ef"]
    assert two_lines("abcdefghijkl", 4, font) == ["abcd", "e…kl"]


def test_a_dataset_in_a_store_gives_the_same_sheet(packed: Path, tmp_path: Path) -> None:
    from shardkit import upload

    upload(packed, "memory://view/train")
    here = view(packed, tmp_path / "a.png")
    assert view("memory://view/train", tmp_path / "b.png").classes == here.classes
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "spelled"),
    [
        ({"side": 64}, Pictures(side=64), "side=64"),
        ({"augmented": True, "side": 64}, Pictures(side=64, augmented=True), "side=64, augmented=True"),
        ({"augmented": {"size": 20}}, Pictures(size=20), "augmented=True, size=20"),
        ({"augmented": False}, Pictures(), "augmented=False"),
    ],
)
def test_the_old_keywords_draw_the_same_with_a_warning(
    packed: Path, tmp_path: Path, old: dict[str, Any], new: Pictures, spelled: str
) -> None:
    with pytest.warns(DeprecationWarning, match=re.escape(f"write pictures=shardkit.Pictures({spelled})")):
        before = view(packed, tmp_path / "old.png", **old)
    after = view(packed, tmp_path / "new.png", pictures=new)
    assert Path(before.path).read_bytes() == Path(after.path).read_bytes()


def test_an_old_keyword_takes_any_option_of_decode(packed: Path, tmp_path: Path) -> None:
    old: Any = view
    with pytest.warns(DeprecationWarning):
        old(packed, tmp_path / "old.png", augmented={"crop": "center", "flip": False, "size": 16})
    with pytest.warns(DeprecationWarning), pytest.raises(UsageError, match="'none' is not one of"):
        old(packed, tmp_path / "bad.png", augmented={"crop": "none"})
    with pytest.raises(UsageError, match="side: given together with `pictures`"):
        old(packed, tmp_path / "bad.png", side=64, pictures=Pictures())
    assert not (tmp_path / "bad.png").exists()
