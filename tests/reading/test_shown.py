"""What a Dataset and a batch show in a terminal and in a notebook."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import shardkit
from shardkit.reading import shown
from shardkit.reading.batches.batch import Batch
from shardkit.reading.shown import SHOWN_IMAGES, SHOWN_LABEL, SIDE

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)


def pictures(page: str | None) -> list[tuple[str, PIL.Image.Image]]:
    """(label, image) of each image of a page."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"[^>]* alt="([^"]*)">', page or "")
    return [(label, PIL.Image.open(io.BytesIO(base64.b64decode(data)))) for data, label in found]


def test_a_dataset_is_a_line_with_its_options_steps_and_counts(cars: str) -> None:
    data = shardkit.dataset(cars, shuffle=True, seed=3, threads=2)
    samples = len(data)
    assert repr(data) == (
        f"<shardkit.Dataset {cars!r} shuffle=10000 seed=3 threads=2: {samples} samples, {len(data.classes)} classes>"
    )
    made = data.decode(size=64, flip=True).map(len).batch(8, drop_last=True)
    assert " .decode(size=64, flip=True).map(len).batch(8, drop_last=True): " in repr(made)
    assert repr(made).endswith(f", {len(made)} batches>")
    assert "\n" not in repr(made)


def test_what_selects_is_in_the_line(cars: str) -> None:
    data = shardkit.dataset(cars)
    name = data.classes[0]
    assert f"{cars!r}.select({name!r})" in repr(data.select(name))
    assert f"{cars!r}[…].balance() .take(3)" in repr(data[:9].balance().take(3))
    assert " repeat=endless" in repr(data.repeat()) and " repeat=2" in repr(data.repeat(2))


def test_the_line_counts_a_dataset_on_a_disk_without_opening_it(cars: str) -> None:
    data = shardkit.dataset(cars)
    assert " samples" in repr(data)
    assert not data.content.resolved


def test_the_line_opens_no_store_and_scans_no_tree(tmp_path: Path, draw_tree: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("shardkit.reading.content.Named.catalog", property(lambda _: pytest.fail("opened")))
    draw_tree(tmp_path / "tree", {"a": 1})
    assert repr(shardkit.dataset("s3://nowhere/x")) == "<shardkit.Dataset 's3://nowhere/x'>"
    assert repr(shardkit.dataset(tmp_path / "tree")).endswith("tree')>")
    assert shardkit.dataset("s3://nowhere/x")._repr_html_() is None


def test_what_is_missing_or_damaged_is_shown_without_counts(tmp_path: Path) -> None:
    assert repr(shardkit.dataset("nowhere").decode(size=8)) == "<shardkit.Dataset 'nowhere' .decode(size=8)>"
    (tmp_path / "bad.json").write_text("{")
    for source in ("nowhere", tmp_path / "bad.json"):
        assert shardkit.dataset(source)._repr_html_() is None
    assert repr(shardkit.dataset(tmp_path / "bad.json")).endswith("bad.json')>")


def test_a_notebook_shows_a_few_images_with_their_classes(cars: str) -> None:
    data = shardkit.dataset(cars, shuffle=True).decode(size=8, crop="random").batch(4)
    before = data.state_dict()
    page = data._repr_html_()
    found = pictures(page)
    assert len(found) == SHOWN_IMAGES
    assert {label for label, _ in found} <= set(data.classes)
    assert all(max(image.size) <= SIDE for _, image in found)
    assert "&lt;shardkit.Dataset " in (page or "")
    assert len(page or "") < 60_000 and "http" not in (page or "")
    assert data.state_dict() == before


def test_a_view_shows_its_own_images(cars: str) -> None:
    data = shardkit.dataset(cars)
    _ = data.classes
    assert [label for label, _ in pictures(data[:2]._repr_html_())] == [data.classes[n] for n in data.labels[:2]]


def test_names_of_classes_are_no_markup(tmp_path: Path, draw_tree: Any) -> None:
    draw_tree(tmp_path / "tree", {"<b>&": 1, "x" * 40: 1})
    shardkit.pack(tmp_path / "tree", tmp_path / "out/train", workers=1)
    page = shardkit.dataset(tmp_path / "out/train")._repr_html_() or ""
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "x" * (SHOWN_LABEL - 1) + "…" in page and "x" * SHOWN_LABEL not in page


@pytest.mark.parametrize(
    "images",
    [
        PIXELS, PIXELS[..., :1], PIXELS.transpose(0, 3, 1, 2), PIXELS.astype(np.float32),
        (PIXELS / 255).astype(np.float32), (PIXELS / 127.5 - 1).astype(np.float16), np.zeros(PIXELS.shape, np.float32),
    ],
)  # fmt: skip
def test_a_batch_shows_its_images_whatever_their_layout_and_range(images: Any) -> None:
    found = pictures(Batch(images, np.array([1, 0, 2]))._repr_html_())
    assert [label for label, _ in found] == ["1", "0", "2"]
    assert {image.size for _, image in found} == {(30, 20)}
    mean = float(np.mean([np.asarray(image.convert("L"), float).mean() for _, image in found]))
    assert abs(mean - 127) < 12 or not images.any()


@pytest.mark.parametrize("images", [np.zeros((2, 3)), ["a", "b"], np.zeros((2, 5, 5, 7)), None, object()])
def test_a_batch_of_other_things_has_no_page(images: Any) -> None:
    assert Batch(images, None)._repr_html_() is None


def test_a_batch_without_labels_shows_images_alone() -> None:
    assert [label for label, _ in pictures(Batch(PIXELS, None)._repr_html_())] == ["", "", ""]


def test_an_image_that_is_damaged_is_not_shown(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = shown.open_picture, iter(range(100))

    def fails_first(content: bytes, *, side: int) -> PIL.Image.Image:
        if not next(seen):
            raise ValueError("damaged")
        return real(content, side=side)

    monkeypatch.setattr(shown, "open_picture", fails_first)
    assert len(pictures(shardkit.dataset(cars)._repr_html_())) == SHOWN_IMAGES - 1
