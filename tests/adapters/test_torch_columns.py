"""Further columns as torch gets them: tensors beside images and labels, from workers too, with every sample's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import shardkit

torch = pytest.importorskip("torch")

SAMPLES = 30


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """Thirty photos with columns; the number tells the others."""
    folder = tmp_path_factory.mktemp("photos")
    draw_tree(folder / "tree", {"blue": SAMPLES // 2, "red": SAMPLES // 2})
    paths = sorted(map(str, (folder / "tree").rglob("*.*")))
    numbers = list(range(SAMPLES))
    table = pa.table({
        "path": paths, "label": [Path(path).parent.name for path in paths], "number": numbers,
        "box": [[n, n / 2] for n in numbers], "city": [f"Zürich {n}" for n in numbers],
        "day": pa.array(numbers, pa.date32()),
    })  # fmt: skip
    shardkit.pack(table, folder / "out" / "train", max_count=7, workers=1, columns=shardkit.TableColumns(root="/"))
    return folder / "out" / "train"


COLUMNS = ["number", "box", "city", "day"]


def data_of(prefix: Path, **options: Any) -> Any:
    return shardkit.dataset(prefix, **options).decode(size=8, columns=COLUMNS)


def assert_right(batch: Any) -> list[int]:
    numbers: list[int] = batch["number"].tolist()
    assert batch["number"].dtype == torch.int64 and batch["box"].dtype == torch.float64
    assert batch["box"].tolist() == [[n, n / 2] for n in numbers]
    assert batch["city"] == [f"Zürich {n}" for n in numbers]
    assert (batch["day"] == np.array(numbers, "datetime64[D]")).all()
    return numbers


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_them_with_and_without_workers(workers: int, prefix: Path) -> None:
    loader = data_of(prefix, shuffle=10).batch(4).to_torch().loader(num_workers=workers)
    assert sorted(n for batch in loader for n in assert_right(batch)) == list(range(SAMPLES))


def test_a_loader_resumes_with_them(prefix: Path) -> None:
    data = data_of(prefix, shuffle=10).batch(4)
    loader = data.to_torch().loader(num_workers=2)
    whole = [assert_right(batch) for batch in loader]
    loader = data_of(prefix, shuffle=10).batch(4).to_torch().loader(num_workers=2)
    items = iter(loader)
    seen = [assert_right(next(items)) for _ in range(3)]
    state = loader.state_dict()
    again = data_of(prefix, shuffle=10).batch(4).to_torch().loader(num_workers=1)
    again.load_state_dict(state)
    assert seen + [assert_right(batch) for batch in again] == whole


def test_names_give_a_dict_of_all(prefix: Path) -> None:
    made = data_of(prefix).batch(4).to_torch(names=("pixel_values", "labels"))
    first = next(iter(made))
    assert list(first) == ["pixel_values", "labels", *COLUMNS]
    assert_right(first)


def test_numbered_samples_have_a_dict_of_them(prefix: Path) -> None:
    made = data_of(prefix).to_torch(map_style=True)
    image, label, columns = made[3]
    assert (tuple(image.shape), label in (0, 1), list(columns)) == ((8, 8, 3), True, COLUMNS)
    assert columns["box"].tolist() == [columns["number"], columns["number"] / 2]
    few = shardkit.dataset(prefix).decode(size=8, columns=["number", "box"]).to_torch(map_style=True)
    images, labels, columns = next(iter(torch.utils.data.DataLoader(few, batch_size=5)))
    assert (len(images), len(labels), columns["box"].shape) == (5, 5, (5, 2))
    assert columns["box"][:, 0].tolist() == columns["number"].tolist()
    named = data_of(prefix).to_torch(map_style=True, names=("pixel_values", "labels"))[2]
    assert list(named) == ["pixel_values", "labels", *COLUMNS]


@pytest.mark.parametrize(
    "options", [{}, {"map_style": True}, {"map_style": True, "names": ("image", "label")}], ids=str
)
def test_whole_numbers_of_single_samples_are_those_of_python_as_labels_are(prefix: Path, options: Any) -> None:
    data = data_of(prefix).to_torch(**options)
    sample = data[3] if options else next(iter(data))
    columns = sample if isinstance(sample, dict) else sample[-1]
    assert type(columns["number"]) is int
    assert isinstance(columns["city"], str) and columns["box"].dtype == torch.float64
