"""The loops of others: transformers.Trainer with two ranks, and what Lightning makes of a loader besides training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import shardkit

torch = pytest.importorskip("torch")

BATCH, TRAIN, TEST = 4, 13, 7
"""Neither number of samples is a multiple of what the two ranks take in a step."""

TRAINER = '''
"""One rank of two: trains and evaluates with transformers.Trainer, and writes which images its model saw."""
import json, sys

import torch
from transformers import Trainer, TrainingArguments

import shardkit

folder, how, workers, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8 * 8 * 3, 2)
        self.seen = {True: [], False: []}

    def forward(self, images, labels):
        self.seen[self.training] += [str(image.flatten().tolist()) for image in images]
        logits = self.layer(images.float().flatten(1) / 255)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def data(name, how, **options):
    options = options | ({"rank": 0, "world_size": 1} if how == "whole" else {})
    found = shardkit.dataset(f"{folder}/{name}", threads=1, **options).decode(size=8)
    if how == "loader":
        return found.batch(batch, drop_last=False).to_torch(names=("images", "labels"))
    if how == "named":
        return found.to_torch(map_style=True, names=("images", "labels"))
    if how == "batches":
        found = found.batch(batch)
    return found.to_torch(map_style=True) if how == "map" else found.to_torch()


def collate(items):
    return {
        "images": torch.stack([torch.as_tensor(image) for image, _ in map(pair, items)]),
        "labels": torch.tensor([int(label) for _, label in map(pair, items)]),
    }


def pair(item):
    return (item["jpg"], item["cls"]) if isinstance(item, dict) else item


order = {} if how == "map" else {"shuffle": 4, "seed": 1, "remainder": "pad"}
train = data("train", "map" if how == "evaluation" else how, **order)
test = data("test", {"evaluation": "samples", "loader": "named"}.get(how, how))
arguments = TrainingArguments(
    output_dir=f"{folder}/out", per_device_train_batch_size=batch, per_device_eval_batch_size=batch,
    num_train_epochs=1, use_cpu=True, report_to=[], save_strategy="no", remove_unused_columns=False,
    disable_tqdm=True, logging_strategy="no", label_names=["labels"], dataloader_num_workers=workers,
    accelerator_config={"dispatch_batches": False} if how == "sharded" else None,
)


class ShardTrainer(Trainer):
    def get_train_dataloader(self):
        return self.train_dataset.loader()


model = Model()
kind, chosen = (ShardTrainer, {}) if how == "loader" else (Trainer, {"data_collator": collate})
trainer = kind(model=model, args=arguments, train_dataset=train, eval_dataset=test, **chosen)
predictions, error = [], ""
try:
    trainer.train()
    predictions = trainer.predict(test).label_ids.tolist()
except shardkit.UsageError as exc:
    error = str(exc)
result = {"train": model.seen[True], "test": model.seen[False], "predictions": predictions, "error": error}
with open(f"{folder}/rank-{arguments.process_index}.json", "w") as file:
    json.dump(result, file)
torch.distributed.destroy_process_group()  # gloo's threads may abort the process at its end
'''


def trained(folder: Path, draw_tree: Any, how: str, workers: int = 0) -> list[dict[str, Any]]:
    """What each of two ranks of a Trainer wrote."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    for seed, (name, count) in enumerate({"train": TRAIN, "test": TEST}.items()):
        counts = {"blue": count // 2, "red": count - count // 2}
        tree = draw_tree(folder / f"{name}-tree", counts, size=(12, 12), seed=100 * seed)
        shardkit.pack(tree, folder / name, workers=1)
    (folder / "trainer.py").write_text(TRAINER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    home = str(Path(shardkit.__file__).parent.parent)
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": home}
    ranks = [
        subprocess.Popen(
            [sys.executable, "trainer.py", str(folder), how, str(workers), str(BATCH)], cwd=folder,
            stdout=subprocess.DEVNULL, env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        assert [process.wait(timeout=240) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    return [json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(2)]


@pytest.mark.parametrize(("how", "workers"), [("map", 2), ("whole", 0), ("loader", 0)])
def test_a_trainer_of_two_ranks_sees_every_sample(tmp_path: Path, draw_tree: Any, how: str, workers: int) -> None:
    """Both ranks take equally much: Accelerate fills the last step up with samples of the beginning."""
    ranks = trained(tmp_path, draw_tree, how, workers)
    assert [rank["error"] for rank in ranks] == ["", ""]
    labels = [sample["cls"] for sample in shardkit.dataset(tmp_path / "test").decode(size=8)]
    assert [rank["predictions"] for rank in ranks] == [labels, labels]
    for name, samples in (("train", TRAIN), ("test", TEST)):
        each = [rank[name] for rank in ranks]
        seen = Counter(each[0] + each[1])
        assert len(seen) == samples
        assert len(each[0]) == len(each[1])
        assert sum(seen.values()) - samples < 2 * BATCH
        assert max(seen.values()) <= 2


@pytest.mark.parametrize("how", ["batches", "sharded"])
def test_a_trainer_that_would_deal_a_part_to_the_ranks_again_is_refused(
    tmp_path: Path, draw_tree: Any, how: str
) -> None:
    for rank, result in enumerate(trained(tmp_path, draw_tree, how)):
        assert f"this is already the part of rank {rank} of 2" in result["error"]
        assert "for transformers.Trainer use to_torch(map_style=True)" in result["error"]
        assert result["train"] == []


def test_an_evaluation_that_would_see_a_part_only_is_refused(tmp_path: Path, draw_tree: Any) -> None:
    for rank, result in enumerate(trained(tmp_path, draw_tree, "evaluation")):
        assert f"this is already the part of rank {rank} of 2" in result["error"]
        assert result["train"] != [] and result["test"] == []


RESUMING = '''
"""Three epochs with transformers.Trainer, or the rest of them after a checkpoint; writes which images came."""
import json, sys
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import shardkit

folder, checkpoint, skip = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "skip"
torch.set_num_threads(1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8 * 8 * 3, 2)
        self.seen = []

    def forward(self, pixel_values, labels):
        self.seen.append([str(image.flatten().tolist()) for image in pixel_values])
        logits = self.layer(pixel_values.float().flatten(1) / 255)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class ShardTrainer(Trainer):
    def get_train_dataloader(self):
        loader = self.train_dataset.loader()
        if checkpoint and skip:
            loader.load_state_dict(json.loads(Path(checkpoint, "position.json").read_text()))
        return loader


class SavePosition(TrainerCallback):
    def on_save(self, args, state, control, train_dataloader=None, **_):
        at = Path(args.output_dir, f"checkpoint-{state.global_step}", "position.json")
        at.write_text(json.dumps(train_dataloader.state_dict()))


data = shardkit.dataset(folder / "cars", shuffle=8, seed=1, threads=1).decode(size=8).batch(3, drop_last=False)
arguments = TrainingArguments(
    output_dir=str(folder / "out"), num_train_epochs=3, use_cpu=True, report_to=[], save_steps=2, disable_tqdm=True,
    logging_strategy="no", ignore_data_skip=skip, gradient_accumulation_steps=2,
)
model = Model()
trainer = ShardTrainer(
    model=model, args=arguments, train_dataset=data.to_torch(names=("pixel_values", "labels")),
    callbacks=[SavePosition()],
)
error = ""
try:
    trainer.train(resume_from_checkpoint=checkpoint or None)
except shardkit.UsageError as exc:
    error = str(exc)
print(json.dumps({"seen": model.seen, "steps": trainer.state.global_step, "error": error}))
'''


def test_a_trainer_is_resumed_at_the_next_batch(tmp_path: Path, draw_tree: Any, run_python: Any) -> None:
    """18 samples in batches of 3, two for each step: 3 steps an epoch. Step 4 is in the second epoch."""
    pytest.importorskip("transformers")
    tree = draw_tree(tmp_path / "tree", {"blue": 8, "red": 10}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "cars", workers=1)
    (tmp_path / "resuming.py").write_text(RESUMING)

    def train(checkpoint: str, skip: str) -> dict[str, Any]:
        out = run_python("resuming.py", str(tmp_path), checkpoint, skip, cwd=tmp_path, OMP_NUM_THREADS="1").stdout
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    whole = train("", "skip")
    assert (len(whole["seen"]), whole["steps"], whole["error"]) == (18, 9, "")
    for epoch in range(3):
        assert len({image for step in whole["seen"][6 * epoch : 6 * epoch + 6] for image in step}) == 18
    checkpoint = str(tmp_path / "out" / "checkpoint-4")
    resumed = train(checkpoint, "skip")
    assert (resumed["seen"], resumed["steps"]) == (whole["seen"][8:], 9)
    refused = train(checkpoint, "replay")
    assert refused["seen"] == []
    assert "use ignore_data_skip=True and give the loader its state with load_state_dict()" in refused["error"]


COUNT, STEP = 17, 4


@pytest.fixture
def shards(tmp_path: Path, draw_tree: Any) -> str:
    tree = draw_tree(tmp_path / "tree", {"blue": 8, "red": COUNT - 8}, size=(12, 12))
    shardkit.pack(tree, tmp_path / "cars", workers=1, max_bytes=6000)
    return str(tmp_path / "cars")


def loader(shards: str, workers: int = 0, **options: Any) -> Any:
    data = shardkit.dataset(shards, threads=1, **options).decode(size=8).batch(STEP, drop_last=False)
    return data.to_torch().loader(num_workers=workers)


def module() -> Any:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(192, 2)
            self.steps: list[list[str]] = []

        def forward(self, batch: Any) -> Any:
            self.steps.append(list(batch.keys))
            return self.layer(batch.images.flatten(1) / 255)

        def predict_step(self, batch: Any, _: int) -> Any:
            return self(batch)

        def training_step(self, batch: Any, _: int) -> Any:
            return torch.nn.functional.cross_entropy(self(batch), batch.labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()


def lightning_trainer(folder: Path, **options: Any) -> Any:
    lightning = pytest.importorskip("lightning")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet["enable_model_summary"] = False
    return lightning.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **options)


lightnings_own = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # threads do their work
    pytest.mark.filterwarnings("ignore:.*has `__len__` defined"),  # which is right with any number of workers
]


class TestLightning:
    pytestmark = lightnings_own

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("by", ["loader", "module of data"])
    def test_predict_gives_a_prediction_for_each_sample_in_order(
        self, shards: str, tmp_path: Path, workers: int, by: str
    ) -> None:
        lightning = pytest.importorskip("lightning")

        class Data(lightning.LightningDataModule):  # type: ignore[misc, name-defined]
            def predict_dataloader(self) -> Any:
                return loader(shards, workers)

        given = {"dataloaders": loader(shards, workers)} if by == "loader" else {"datamodule": Data()}
        model = module()
        found = lightning_trainer(tmp_path).predict(model, **given)
        assert [len(part) for part in found] == [STEP] * (COUNT // STEP) + [COUNT % STEP]
        expected = [sample["__key__"] for sample in shardkit.dataset(shards)]
        assert [key for step in model.steps for key in step] == expected

    @pytest.mark.filterwarnings("ignore:You requested to overfit")  # it takes any sampler but its own for shuffling
    @pytest.mark.parametrize("workers", [0, 2])
    def test_overfit_batches_trains_on_the_first_batches_of_each_epoch(
        self, shards: str, tmp_path: Path, workers: int
    ) -> None:
        model = module()
        lightning_trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, loader(shards, workers))
        keys = [sample["__key__"] for sample in shardkit.dataset(shards)]
        assert model.steps == [keys[:STEP], keys[STEP : 2 * STEP]] * 3
