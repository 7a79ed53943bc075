"""The data module for Lightning: all samples once on one device and on two, and a checkpoint at the next batch."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import shardkit

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")

from shardkit.lightning import DataModule  # noqa: E402

SAMPLES, BATCH = 25, 4
STEPS = -(-SAMPLES // BATCH)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # threads do their work
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*has `__len__` defined"),  # which is right with any number of workers
]


@pytest.fixture
def cars(tmp_path: Path, draw_tree: Any) -> Path:
    tree = draw_tree(tmp_path / "tree", {"blue": 10, "red": SAMPLES - 10}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "cars", workers=1)
    return tmp_path / "cars"


def batches(cars: Path, **options: Any) -> Any:
    return shardkit.dataset(cars, threads=1, **options).decode(size=8).batch(BATCH, drop_last=False)


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Notes the keys of each step of training, validation, test and prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 2)
        self.train_keys: list[list[str]] = []
        self.other_keys: list[str] = []

    def forward(self, batch: Any) -> Any:
        return self.layer(batch.images.flatten(1) / 255)

    def training_step(self, batch: Any, _: int) -> Any:
        self.train_keys.append(list(batch.keys))
        return torch.nn.functional.cross_entropy(self(batch), batch.labels)

    def validation_step(self, batch: Any, _: int) -> None:
        self.other_keys += batch.keys

    def test_step(self, batch: Any, _: int) -> None:
        self.other_keys += batch.keys

    def predict_step(self, batch: Any, _: int) -> Any:
        self.other_keys += batch.keys
        return self(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder: Path, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, num_sanity_val_steps=0, **quiet, **options
    )


def epochs(cars: Path, count: int) -> list[list[list[str]]]:
    data = batches(cars, shuffle=8, seed=1)
    return [[batch.keys for batch in data] for _ in range(count)]


def test_each_loop_reads_its_dataset(cars: Path, tmp_path: Path) -> None:
    in_order = [sample["__key__"] for sample in shardkit.dataset(cars)]
    data = DataModule(
        batches(cars, shuffle=8, seed=1), validation=batches(cars), test=batches(cars), predict=batches(cars)
    )
    model = Module()
    trainer(tmp_path, max_epochs=2, enable_checkpointing=False).fit(model, datamodule=data)
    assert model.train_keys == list(chain(*epochs(cars, 2)))
    assert model.other_keys == 2 * in_order
    for loop in ("validate", "test", "predict"):
        model.other_keys = []
        getattr(trainer(tmp_path, enable_checkpointing=False), loop)(model, datamodule=data)
        assert model.other_keys == in_order


@pytest.mark.parametrize("step", [3, STEPS, STEPS + 2])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_training_is_resumed_at_the_batch_after_the_checkpoint(
    cars: Path, tmp_path: Path, step: int, workers: int
) -> None:
    def data() -> DataModule:
        options: Any = {"num_workers": 1, "multiprocessing_context": "fork"} if workers else {}
        return DataModule(batches(cars, shuffle=8, seed=1), **options)

    from lightning.pytorch.callbacks import ModelCheckpoint

    expected = list(chain(*epochs(cars, 3)))
    saving = ModelCheckpoint(tmp_path / "saved", "at-{step}", every_n_train_steps=step, save_top_k=-1)
    trainer(tmp_path, max_epochs=3, callbacks=[saving]).fit(Module(), datamodule=data())
    resumed = Module()
    again = trainer(tmp_path, max_epochs=3, enable_checkpointing=False)
    again.fit(resumed, datamodule=data(), ckpt_path=str(tmp_path / "saved" / f"at-step={step}.ckpt"))
    assert resumed.train_keys == expected[step:]


def test_a_fit_without_validation_and_a_test_without_data(cars: Path, tmp_path: Path) -> None:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    data, model = DataModule(batches(cars)), Module()
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(model, datamodule=data)
    assert (len(model.train_keys), model.other_keys) == (STEPS, [])
    with pytest.raises(MisconfigurationException, match="`test_dataloader` must be implemented"):
        trainer(tmp_path, enable_checkpointing=False).test(model, datamodule=data)


def test_single_samples_and_other_things_are_refused(cars: Path) -> None:
    with pytest.raises(shardkit.UsageError, match=r"train: Lightning needs batches; add \.batch\(32\)"):
        DataModule(shardkit.dataset(cars).decode(size=8))
    with pytest.raises(shardkit.UsageError, match="predict: list is not a Dataset"):
        DataModule(predict=[1])  # type: ignore[arg-type]


DDP = '''
"""Two processes of a Trainer: trains and tests, and writes which samples each has seen."""
import json, os, sys

import lightning
import torch

import shardkit
from shardkit.lightning import DataModule

prefix, batch = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(192, 2)
        self.seen = {"train": [], "test": []}

    def training_step(self, batch, _):
        self.seen["train"] += batch.keys
        return torch.nn.functional.cross_entropy(self.layer(batch.images.flatten(1) / 255), batch.labels)

    def test_step(self, batch, _):
        repeated = [False] * len(batch.keys) if batch.repeats is None else batch.repeats.tolist()
        self.seen["test"] += [key for key, again in zip(batch.keys, repeated) if not again]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def batches(**options):
    return shardkit.dataset(prefix, threads=1, **options).decode(size=8).batch(batch, drop_last=False)


data, model = DataModule(batches(shuffle=8, seed=1, remainder="pad"), test=batches()), Module()
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(model, datamodule=data)
trainer.test(model, datamodule=data, verbose=False)
with open(f"rank-{trainer.global_rank}.json", "w") as file:
    json.dump(model.seen, file)
torch.distributed.destroy_process_group()
'''


def test_two_processes_read_every_sample_once(cars: Path, tmp_path: Path, run_python: Any) -> None:
    """The last step of training is filled up with a repeated sample; in a test, `batch.repeats` marks it."""
    (tmp_path / "ddp.py").write_text(DDP)
    run_python("ddp.py", str(cars), str(BATCH), cwd=tmp_path, OMP_NUM_THREADS="1")
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2)]
    expected = sorted(sample["__key__"] for sample in shardkit.dataset(cars))
    train = Counter(ranks[0]["train"] + ranks[1]["train"])
    assert sorted(train) == expected
    assert len(ranks[0]["train"]) == len(ranks[1]["train"]) == (SAMPLES + 1) // 2
    assert sorted(ranks[0]["test"] + ranks[1]["test"]) == expected
