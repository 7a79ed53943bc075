from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import DestinationError
from shardkit.tools import demo as module
from shardkit.tools.demo import SPLITS, _car, demo, draw_car, draw_cars, loop_over_files


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of few images."""
    for split in SPLITS:
        monkeypatch.setitem(SPLITS, split, 3)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small")
def test_it_draws_packs_and_streams(tmp_path: Path) -> None:
    result = demo(tmp_path / "demo")
    assert result.images == 18
    assert {split: manifest.samples for split, manifest in result.manifests.items()} == dict.fromkeys(SPLITS, 6)
    assert [entry.name for entry in result.manifests["train"].classes] == ["blue", "red"]
    assert result.batch_shape == (6, 96, 96, 3)
    assert result.batches == 1
    assert result.files_rate > 0
    assert result.shards_rate > 0
    assert result.tree == tmp_path / "demo"
    assert len(files(tmp_path)) == 18, "the tree stays, the shards do not"


@pytest.mark.usefixtures("small")
def test_a_seed_gives_the_same_tree_and_another_one_another(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_cars(tmp_path / name, seed=seed)
    one, two, other = (files(tmp_path / name) for name in "abc")
    assert one == two
    assert set(other) == set(one)
    assert all(other[name] != one[name] for name in one)
    assert len(set(one.values())) == len(one)


@pytest.mark.parametrize(("colour", "strong", "weak"), [("red", 0, 2), ("blue", 2, 0)])
def test_a_car_has_its_colour(colour: str, strong: int, weak: int) -> None:
    for seed in range(20):
        pixels = np.asarray(draw_car(random.Random(seed), colour), np.int64)
        assert pixels.shape == (120, 160, 3)
        painted = (pixels[..., strong] > 100) & (pixels[..., weak] < 100) & (pixels[..., 1] < 100)
        assert painted.mean() > 0.02


def test_the_rear_lamp_lies_on_the_body_of_the_car() -> None:
    class Recorded:
        """Keeps where the body and the lamp are drawn."""

        def rounded_rectangle(self, box: tuple[float, ...], **_: Any) -> None:
            self.body = box

        def rectangle(self, box: tuple[float, ...], **_: Any) -> None:
            self.lamp = box

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    draw: Any = Recorded()
    _car(draw, random.Random(0), 20.0, 200.0, 150.0, (200, 30, 40))
    left, top, right, low = draw.body
    height = low - (top + 1)  # the body begins a pixel above the belt
    assert draw.lamp == pytest.approx(
        (left, top + 1 + 0.3 * height, left + 0.02 * (right - left), top + 1 + 0.55 * height)
    )


class Shapes:
    """Keeps what is drawn: (name of the shape, its corners, its colour)."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda corners, fill, **_: self.drawn.append((name, corners, fill))

    def of(self, name: str, fill: Any) -> list[Any]:
        return [corners for shape, corners, colour in self.drawn if (shape, colour) == (name, fill)]


@pytest.mark.parametrize("seed", range(20))
def test_a_car_is_whole_in_the_picture_and_stands_on_the_road(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes()
    monkeypatch.setattr("PIL.ImageDraw.Draw", lambda image: shapes)
    draw_car(random.Random(seed), "red")
    width, height = module._WIDTH * module._LARGER, module._HEIGHT * module._LARGER
    [road] = [box for name, box, _ in shapes.drawn if name == "rectangle" and box[2:] == (width, height)]
    [body] = [box for name, box, _ in shapes.drawn if name == "rounded_rectangle"]
    tyres = shapes.of("ellipse", (25, 25, 28))
    assert (len(tyres), road[0]) == (2, 0)
    assert 0 <= body[0] < body[2] <= width
    assert 0 < body[1] < body[3]
    assert all(body[0] < left < right < body[2] for left, _, right, _ in tyres)
    assert all(road[1] < low < height for *_, low in tyres)
    marks = shapes.of("rectangle", (225, 225, 215))
    assert marks
    assert all(road[1] < top < low < height for _, top, _, low in marks)


@pytest.mark.parametrize("seed", range(20))
def test_rims_and_hubs_lie_within_the_tyres_and_the_windows_within_the_cabin(seed: int) -> None:
    shapes: Any = Shapes()
    paint = (200, 30, 40)
    _car(shapes, random.Random(seed), 20.0, 200.0, 150.0, paint)
    wheels = [shapes.of("ellipse", fill) for fill in ((25, 25, 28), (190, 190, 195), (90, 90, 95))]
    for tyre, rim, hub in zip(*wheels, strict=True):
        assert tyre[0] < rim[0] < hub[0] < hub[2] < rim[2] < tyre[2]
        assert tyre[1] < rim[1] < hub[1] < hub[3] < rim[3] < tyre[3] == pytest.approx(200)
    cabin, *windows = [corners for name, corners, _ in shapes.drawn if name == "polygon"]
    across, down = ([corner[n] for corner in cabin] for n in range(2))
    assert len(windows) == 2
    for x, y in [corner for corners in windows for corner in corners]:
        assert min(across) < x < max(across)
        assert min(down) < y <= max(down)


def test_a_folder_that_holds_anything_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DestinationError, match="the folder is not empty"):
        demo(tmp_path)
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DestinationError):
        demo(tmp_path / "file")


@pytest.mark.usefixtures("small")
def test_the_loop_over_files_gives_every_image_once_with_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    draw_cars(tmp_path)
    found = list(loop_over_files(tmp_path / "train", seed=0))
    assert [images.shape for images, _ in found] == [(4, 96, 96, 3), (2, 96, 96, 3)]
    assert sorted(np.concatenate([labels for _, labels in found])) == [0, 0, 0, 1, 1, 1]


def test_the_rate_counts_images_and_not_batches_or_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    batches = [(np.zeros((size, 3, 4, 3), np.uint8), np.zeros(size, np.int64)) for size in (6, 2)]
    assert module._pass(batches) == (4.0, [(6, 3, 4, 3), (2, 3, 4, 3)])
