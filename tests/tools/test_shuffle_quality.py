"""How well a dataset comes mixed: datasets packed with and without shuffling, and the numbers by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.cli.main import run
from shardkit.errors import UsageError
from shardkit.tools import shuffle_quality as module
from shardkit.tools.shuffle_quality import TOLERANCE, Mixing, _carry_over, _entropy, plot, shuffle_quality
from shardkit.tools.shuffle_ranks import fetched, kept, met_again, touched


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, draw_image: object) -> Path:
    """Four classes of 150 images each."""
    root = tmp_path_factory.mktemp("quality") / "tree"
    data = draw_image(size=(8, 8))  # type: ignore[operator]
    for name in "abcd":
        (root / name).mkdir(parents=True)
        for number in range(150):
            (root / name / f"{number:03}.jpg").write_bytes(data)
    return root


@pytest.fixture(scope="module")
def mixed(tree: Path) -> Path:
    shardkit.pack(tree, tree.parent / "mixed", max_count=50, workers=1)
    return tree.parent / "mixed"


@pytest.fixture(scope="module")
def in_order(tree: Path) -> Path:
    shardkit.pack(tree, tree.parent / "in-order", max_count=50, workers=1, shuffle=False)
    return tree.parent / "in-order"


def test_a_shuffled_pack_is_well_mixed_without_any_buffer(mixed: Path) -> None:
    quality = shuffle_quality(mixed, buffers=[0, 100], batch=16)
    assert quality.enough == 0
    assert quality.ways[0].mixed == pytest.approx(1, abs=0.05)
    assert quality.ways[0].run_length < 1.6


def test_a_class_tree_packed_in_order_is_not_mixed(in_order: Path) -> None:
    quality = shuffle_quality(in_order, buffers=[0, 40], batch=16, lanes=1)
    packed = quality.ways[0]
    assert packed.run_length == 150
    assert packed.mixed < 0.05
    assert packed.carry_over > 0.85  # 150 samples are 9 batches of a class, then comes another
    assert packed.displacement == packed.epoch_change == 0
    assert quality.enough is None


def test_lanes_alone_hide_runs_of_classes_from_the_entropy_but_not_from_the_carry_over(in_order: Path) -> None:
    way = shuffle_quality(in_order, buffers=[4], batch=6, lanes=2).ways[0]
    assert way.carry_over > 0.5


def test_a_buffer_as_long_as_the_dataset_mixes_like_a_full_permutation(in_order: Path) -> None:
    quality = shuffle_quality(in_order, buffers=[600], batch=16, lanes=1)
    assert quality.enough == 600
    assert quality.ways[0].displacement == pytest.approx(1 / 3, abs=0.03)


def test_the_entropy_of_batches_is_that_of_their_class_shares() -> None:
    assert _entropy(np.array([0, 0, 1, 1, 0, 0, 0, 0]), 4) == pytest.approx(0.5)
    assert _entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(2)
    assert _entropy(np.array([0, 0, 1, 1, 0, 0, 0]), 4) == pytest.approx(1)  # what is no whole batch does not count
    assert _entropy(np.array([0, 1, 2, 3]), 9) == pytest.approx(2)  # where there is none, all are one


def test_the_carry_over_is_the_correlation_of_neighbouring_batches() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 640)
    counts = np.stack([np.bincount(part, minlength=5) for part in labels.reshape(-1, 16)]).astype(float)
    counts -= 16 * np.bincount(labels, minlength=5) / len(labels)
    assert _carry_over(labels, 16) == pytest.approx((counts[1:] * counts[:-1]).sum() / (counts**2).sum())


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_buffer_is_enough_within_what_chance_explains(
    classes: int, tmp_path: Path, draw_tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = draw_tree(tmp_path / "tree", {f"c{number}": 48 // classes for number in range(classes)}, size=(8, 8))
    shardkit.pack(tree, tmp_path / "train", workers=1)
    chance = 4 / np.sqrt(48 // 16 * max(1, classes - 1))
    assert chance > TOLERANCE
    carried = {0: chance * 1.01, 10: chance * 0.99}

    def mixing(name: str, buffer: int, *_: Any) -> Mixing:
        return Mixing(name, buffer, 1.0, 1.0, 0.0, 0.0, 1.0, carried.get(buffer, 0.0))

    monkeypatch.setattr(module, "_mixing", mixing)
    assert shuffle_quality(tmp_path / "train", buffers=[0, 10], batch=16).enough == 10


def test_the_command_prints_the_comparison_and_its_json(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shuffle-quality", str(mixed), "--buffers", "0,100", "--batch", "16"]) == 0
    text = capsys.readouterr().out
    assert "full permutation" in text
    assert "well mixed as packed" in text
    assert run(["shuffle-quality", str(mixed), "--buffers", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 600


def test_the_plot_is_a_png_with_three_panels(mixed: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    plot(shuffle_quality(mixed, buffers=[0, 100]), tmp_path / "mixing.png")
    with Image.open(tmp_path / "mixing.png") as image:
        assert image.width > 2 * image.height


@pytest.mark.parametrize("name", ["mixing.png", "mixing.svg"])
def test_the_plot_leaves_the_backend_and_the_figures_of_the_caller_alone(
    name: str, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # it can't be imported
    monkeypatch.setattr(matplotlib, "use", None)
    plot(shuffle_quality(mixed, buffers=[0, 100]), tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000


def test_buffers_that_are_no_numbers_are_refused(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shuffle-quality", str(mixed), "--buffers", "some"]) == 2
    assert "--buffers" in capsys.readouterr().err


def test_a_batch_of_one_is_refused(mixed: Path) -> None:
    with pytest.raises(UsageError, match="give at least 2"):
        shuffle_quality(mixed, batch=1)


def test_a_class_directory_is_never_well_mixed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batch in ("2", "16", "64", "256"):
        assert run(["shuffle-quality", str(tree), "--buffers", "0,100", "--batch", batch]) == 0
        out = capsys.readouterr().out
        assert "4 classes, a class directory" in out
        assert "well mixed" not in out
    quality = shuffle_quality(tree, buffers=[0], batch=8)
    assert (quality.packed, quality.enough) == (False, None)


def test_few_batches_give_no_advice(in_order: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source in (in_order, mixed):
        assert run(["shuffle-quality", str(source), "--batch", "300"]) == 0
        assert (
            "2 batches are too few to tell how well a buffer mixes; choose a smaller --batch" in capsys.readouterr().out
        )


def test_long_runs_are_not_enough_whatever_the_batches_say(in_order: Path) -> None:
    quality = shuffle_quality(in_order, buffers=[0], batch=2, lanes=1)
    assert quality.ways[0].run_length > module.RUNS * quality.ways[-1].run_length
    assert quality.enough is None


def test_the_columns_are_explained_by_their_names(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shardkit.cli.shuffle_quality import COLUMNS

    assert run(["shuffle-quality", str(mixed), "--batch", "16"]) == 0
    head = capsys.readouterr().out.splitlines()[1]
    for line in COLUMNS:
        assert all(name.strip() in head for name in line.partition(":")[0].split(",")), line


def test_the_plot_has_one_scale_for_all_datasets(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    tops: list[float] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: tops.extend(a.get_ylim()[1] for a in self.axes))
    quality = shuffle_quality(mixed, buffers=[0, 100], batch=16)
    assert max(abs(way.carry_over) for way in quality.ways) < 0.3, "noise, which must not fill the height"
    plot(quality, tmp_path / "mixing.png")
    assert tops == pytest.approx([110, 110, 44])


@pytest.mark.parametrize("ranks", [1, 4, 7])
def test_over_ranks_each_reads_its_own_part_about_once(mixed: Path, ranks: int) -> None:
    quality = shuffle_quality(mixed, buffers=[0, 20, 100], batch=8, ranks=ranks, ranks_per_node=2)
    assert [(way.buffer, way.affinity) for way in quality.over_ranks] == [
        (20, False),
        (20, True),
        (100, False),
        (100, True),
    ]
    for way in quality.over_ranks:
        assert (way.ranks, way.ranks_per_node) == (ranks, 2)
        assert way.read >= 1 and way.touched >= 1 and 0 < way.met < 1 and 0 < way.chance < 1


def test_nodes_with_affinity_keep_their_samples(mixed: Path) -> None:
    options: Any = {"buffers": [20], "batch": 8, "ranks": 6, "ranks_per_node": 2}
    free, keeping = shuffle_quality(mixed, **options).over_ranks
    assert free.kept < 0.7 and keeping.kept == 1


def test_pairs_that_meet_again_by_hand() -> None:
    first = [np.array([0, 1, 2, 3]), np.array([4, 5, 6, 7])]
    assert met_again(first, first, 8, 2) == met_again(first, first, 8, 4) == 1
    assert met_again(first, [np.array([0, 2, 4, 6]), np.array([1, 3, 5, 7])], 8, 4) == pytest.approx(2 / 6)
    assert met_again(first, [np.array([0, 4, 1, 5]), np.array([2, 6, 3, 7])], 8, 2) == 0


def test_what_is_fetched_and_touched_by_hand() -> None:
    counts = np.array([4, 4])
    assert fetched([np.array([0, 2, 3])], counts, 1) == pytest.approx(4 / 3), "sample 1 is fetched along"
    assert fetched([np.array([0, 3])], counts, 1) == 1, "two are too many"
    assert fetched([np.array([3, 5])], counts, 1) == 1, "another shard"
    assert touched([np.array([0, 1]), np.array([3, 4])], counts) == (4 + 8) / 4
    assert kept([np.array([0, 1]), np.array([2, 3])], [np.array([1, 2]), np.array([3, 0])], 4) == 0.5


def test_the_command_shows_what_ranks_read(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shuffle-quality", str(mixed), "--buffers", "20", "--batch", "8", "--ranks", "4"]) == 0
    shown = capsys.readouterr().out
    assert "4 ranks, 8 on each node\n" in shown and "meet again" in shown and "stay on the node" in shown
    assert "keep their part" in shown
