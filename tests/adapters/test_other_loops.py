"""Loops that take any loader: torchdata's StatefulDataLoader on two ranks, ignite, and a dataset for Ultralytics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import shardkit
from shardkit.errors import UsageError

torch = pytest.importorskip("torch")

SAMPLES, BATCH, RANKS = 26, 4, 2
DOCS = Path(__file__).parents[2] / "docs" / "loops.md"


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    root = tmp_path_factory.mktemp("loops")
    tree = draw_tree(root / "tree", {"blue": SAMPLES // 2, "red": SAMPLES - SAMPLES // 2}, size=(12, 12))
    shardkit.pack(tree, root / "cars", workers=1, max_count=5)
    return root / "cars"


def batches(cars: Path, **options: Any) -> shardkit.Dataset:
    return shardkit.dataset(cars, shuffle=8, seed=1, threads=1, **options).decode(size=8).batch(BATCH)


def stateful(data: Any, **options: Any) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(data, **options)


torchdatas_own = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def pixels(items: Any) -> list[list[int]]:
    return [image.flatten().tolist() for images, _ in items for image in images]


@torchdatas_own
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_of_each_rank_resumes_its_part(cars: Path, workers: int) -> None:
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
    if workers:
        options["multiprocessing_context"] = "fork"
    before, after = [], []
    for rank in range(RANKS):
        part = {"rank": rank, "world_size": RANKS}
        iterator = iter(loader := stateful(batches(cars, **part).to_torch(), **options))
        before += pixels(next(iterator) for _ in range(2))
        resumed = stateful(batches(cars, **part).to_torch(), **options)
        resumed.load_state_dict(loader.state_dict())
        after += pixels(resumed)
        del iterator
    everything = pixels(shardkit.dataset(cars).decode(size=8).batch(BATCH))
    assert len(before) == RANKS * 2 * BATCH
    assert sorted(before + after) == sorted(everything)


@torchdatas_own
def test_a_stateful_loader_that_would_batch_or_shard_again_is_refused(cars: Path) -> None:
    with pytest.raises(UsageError, match=r"already yields batches.*batch_size=None"):
        next(iter(stateful(batches(cars).to_torch(), batch_size=BATCH)))
    sampler = torch.utils.data.DistributedSampler(range(len(batches(cars))), RANKS, 0)
    with pytest.raises(UsageError, match=r"batches are not numbered; iterate over batches\.to_torch\(\)\.loader"):
        next(iter(stateful(batches(cars), batch_size=None, sampler=sampler)))


@torchdatas_own
def test_a_stateful_loader_of_numbered_samples_resumes(cars: Path) -> None:
    numbered = shardkit.dataset(cars).decode(size=8).to_torch(map_style=True)
    generator = torch.Generator()
    loader = stateful(numbered, batch_size=BATCH, shuffle=True, generator=generator)
    iterator = iter(loader)
    before = pixels([next(iterator)])
    resumed = stateful(numbered, batch_size=BATCH, shuffle=True, generator=generator)
    resumed.load_state_dict(loader.state_dict())
    rest = pixels(resumed)
    assert rest == pixels(iterator)
    assert sorted(before + rest) == sorted(pixels(shardkit.dataset(cars).decode(size=8).batch(BATCH)))


def test_ignite_runs_whole_epochs(cars: Path) -> None:
    engine = pytest.importorskip("ignite.engine")
    steps: list[list[str]] = []
    runner = engine.Engine(lambda _, batch: steps.append(batch.keys))
    runner.run(batches(cars).to_torch().loader(), max_epochs=2)
    data = batches(cars)
    assert steps == [batch.keys for _ in range(2) for batch in data]


def test_ignites_auto_dataloader_would_batch_again_and_is_refused(cars: Path) -> None:
    idist = pytest.importorskip("ignite.distributed")
    with pytest.raises(UsageError, match=r"already yields batches.*iterate over to_torch\(\)\.loader\(\)"):
        next(iter(idist.auto_dataloader(batches(cars).to_torch())))


def test_the_dataset_for_ultralytics_has_its_items(cars: Path) -> None:
    """The class that docs/loops.md shows, without the trainer."""
    page = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    [block] = [block for block in page if '"img"' in block]
    names: dict[str, Any] = {}
    exec(block.replace("SIZE = 224", "SIZE = 8").partition("train = ")[0], names)
    loader = torch.utils.data.DataLoader(names["Shards"](cars), batch_size=BATCH, shuffle=True)
    found = list(loader)
    assert found[0]["img"].shape == (BATCH, 3, 8, 8) and found[0]["img"].dtype == torch.float32
    assert found[0]["img"].min() >= 0 and found[0]["img"].max() <= 1
    labels = torch.cat([batch["cls"] for batch in found])
    assert sorted(labels.tolist()) == sorted(shardkit.dataset(cars).labels)
