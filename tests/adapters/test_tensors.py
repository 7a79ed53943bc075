"""Tensors: no copy, memory formats, pinned memory, numbers in place of batches."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError

torch = pytest.importorskip("torch")


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def test_tensors_share_the_memory_of_the_arrays(shards: str) -> None:
    kept: dict[str, Any] = {}
    data = shardkit.dataset(shards).decode(size=8).batch(6)
    for batch in data.map(lambda batch: kept.setdefault(batch.keys[0], batch)).to_torch():
        assert batch.images.data_ptr() == kept[batch.keys[0]].images.ctypes.data
        assert batch.labels.data_ptr() == kept[batch.keys[0]].labels.ctypes.data


def test_channels_last_is_torchs_memory_format_without_a_copy(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=(8, 9)).batch(6)
    for turned, plain in zip(data.to_torch(channels_last=True), data.to_torch(), strict=True):
        assert turned.images.shape == (6, 3, 8, 9)
        assert turned.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(turned.images.permute(0, 2, 3, 1), plain.images)


@pytest.mark.parametrize("options", [{"layout": "chw"}, None], ids=["chw", "undecoded"])
def test_channels_last_needs_images_of_that_layout(options: Any, shards: str) -> None:
    data = shardkit.dataset(shards)
    with pytest.raises(UsageError, match="channels_last"):
        (data if options is None else data.decode(size=8, **options)).to_torch(channels_last=True)


def test_a_batch_stays_a_batch_when_torch_pins_or_moves_it(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor + 0)
    batch = next(iter(shardkit.dataset(shards).decode(size=8).batch(6).to_torch()))
    for other in (pin_memory(batch), batch.to("cpu"), batch.to(torch.float16), pickle.loads(pickle.dumps(batch))):
        assert type(other) is type(batch)
        assert other.keys == batch.keys
        assert torch.equal(other.images.to(torch.uint8), batch.images)
        assert other.labels.dtype == torch.int64
        images, labels = other
        assert images is other.images and labels is other.labels
    assert pin_memory(batch).images.data_ptr() != batch.images.data_ptr()


def test_numbers_give_images_and_labels(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=8)
    made = data.to_torch(map_style=True)
    assert (len(made), made.classes, made.class_to_idx) == (12, ["blue", "red"], {"blue": 0, "red": 1})
    for number, sample in enumerate(data):
        image, label = made[number]
        np.testing.assert_array_equal(image.numpy(), sample["jpg"])
        assert label == sample["cls"] == made.targets[number]
    assert torch.equal(made[-1][0], made[11][0])
    with pytest.raises(IndexError, match="no sample 12 among 12"):
        made[12]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sampler_and_workers_get_each_number_once(workers: int, shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8, layout="chw").to_torch(map_style=True)
    options: dict[str, Any] = {"multiprocessing_context": "spawn"} if workers else {}  # TensorFlow may be loaded here
    loader = torch.utils.data.DataLoader(
        made, batch_size=5, sampler=torch.utils.data.RandomSampler(made), num_workers=workers, **options
    )
    batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(5, 3, 8, 8), (5, 3, 8, 8), (2, 3, 8, 8)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(made.targets)


def test_a_view_and_a_map_keep_their_meaning(shards: str) -> None:
    view = shardkit.dataset(shards, shuffle=6)[[7, 3, 3]]
    keys = [view[n]["__key__"] for n in range(3)]
    mapped = view.decode(size=8).map(lambda sample: {"jpg": sample["jpg"], "key": sample["__key__"]})
    made = mapped.to_torch(map_style=True, channels_last=True)
    assert [made[n]["key"] for n in range(3)] == keys and keys[1] == keys[2]
    assert made[0]["jpg"].shape == (3, 8, 8)


def test_set_epoch_fixes_the_random_crops(shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8, crop="random").to_torch(map_style=True)
    made.set_epoch(0)
    first, again = made[2][0], made[2][0]
    made.set_epoch(1)
    assert torch.equal(first, again) and not torch.equal(first, made[2][0])


@pytest.mark.parametrize("options", [{"crop": "random"}, {"flip": True}])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_pass_of_a_dataloader_has_new_crops_and_torchs_seed_gives_them_again(
    shards: str, options: Any, workers: int
) -> None:
    made = shardkit.dataset(shards).decode(size=8, **options).to_torch(map_style=True)
    more = {"num_workers": workers, "multiprocessing_context": "fork", "persistent_workers": True} if workers else {}

    def passes(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        loader = torch.utils.data.DataLoader(made, batch_size=5, **more)
        return [torch.cat([images for images, _ in loader]) for _ in range(3)]

    first, again = passes(1), passes(1)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    assert all(map(torch.equal, first, again))


def test_batches_and_filters_have_no_numbers(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=8)
    with pytest.raises(UsageError, match=r"omit \.batch"):
        data.batch(4).to_torch(map_style=True)
    with pytest.raises(UsageError, match="filter"):
        data.filter(bool).to_torch(map_style=True)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning's own
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # threads do their work
@pytest.mark.filterwarnings("ignore:.*has `__len__` defined")  # which is right with any number of workers
def test_lightning_trains_on_it(shards: str, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(192, 2)
            self.keys: list[str] = []

        def training_step(self, batch: Any, _: int) -> Any:
            self.keys += batch.keys
            return torch.nn.functional.cross_entropy(self.layer(batch.images.flatten(1) / 255), batch.labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **options)
    trainer.fit(module, shardkit.dataset(shards).decode(size=8).batch(6).to_torch().loader())
    assert len(set(module.keys)) == 12


BY_NUMBER = {
    "shuffled": (lambda prefix: shardkit.dataset(prefix, shuffle=True).decode(size=8), "this dataset is shuffled"),
    "a part": (lambda prefix: shardkit.dataset(prefix, rank=1, world_size=2).decode(size=8), "over all 2 ranks"),
    "crops": (lambda prefix: shardkit.dataset(prefix).decode(size=8, crop="random"), "the same in each epoch"),
    "flips": (lambda prefix: shardkit.dataset(prefix).decode(size=8, flip=True), "the same in each epoch"),
    "batches": (lambda prefix: shardkit.dataset(prefix).decode(size=8).batch(4), "batches are not numbered"),
}


@pytest.mark.parametrize("kind", list(BY_NUMBER))
@pytest.mark.parametrize(("workers", "batch_size"), [(0, None), (0, 4), (2, 4)])
def test_a_dataloader_around_a_dataset_that_numbers_do_not_mean_is_refused(
    shards: str, workers: int, batch_size: int | None, kind: str
) -> None:
    make, fact = BY_NUMBER[kind]
    options: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
    loader = torch.utils.data.DataLoader(make(shards), batch_size=batch_size, num_workers=workers, **options)
    with pytest.raises(UsageError, match=fact) as caught:
        next(iter(loader))
    assert "to_torch(" in str(caught.value)


@pytest.mark.parametrize("wrap", ["subset", "concat"])
def test_what_torch_wraps_around_a_shuffled_dataset_is_refused(shards: str, wrap: str) -> None:
    data = shardkit.dataset(shards, shuffle=True)
    whole = torch.utils.data.ConcatDataset([data, data])
    wrapped = torch.utils.data.Subset(data, [3, 1]) if wrap == "subset" else whole
    with pytest.raises(UsageError, match="this dataset is shuffled"):
        wrapped[1]
    assert data[3]["__key__"]  # asked for by the program itself


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_around_a_dataset_in_order_gives_each_sample_once(
    shards: str, workers: int, batch_size: int | None
) -> None:
    data = shardkit.dataset(shards)
    options: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
    loader = torch.utils.data.DataLoader(
        data, batch_size=batch_size, num_workers=workers, collate_fn=lambda items: items, **options
    )
    found = list(loader) if batch_size is None else [sample for batch in loader for sample in batch]
    assert [sample["__key__"] for sample in found] == [sample["__key__"] for sample in data]


NAMES = ("pixel_values", "labels")


def test_names_make_dicts_of_batches_and_of_single_samples(shards: str) -> None:
    data = shardkit.dataset(shards).decode(size=(8, 9))
    for named, batch in zip(data.batch(6).to_torch(names=NAMES), data.batch(6).to_torch(), strict=True):
        assert list(named) == list(NAMES)
        assert torch.equal(named["pixel_values"], batch.images) and torch.equal(named["labels"], batch.labels)
    singles, pairs = data.to_torch(map_style=True, names=NAMES), data.to_torch(map_style=True)
    assert len(singles) == len(pairs)
    for named, (image, label) in zip(singles, pairs, strict=True):
        assert torch.equal(named["pixel_values"], image) and named["labels"] == label
    turned = next(iter(data.batch(6).to_torch(names=NAMES, channels_last=True)))["pixel_values"]
    assert turned.shape == (6, 3, 8, 9)


@pytest.mark.parametrize("names", ["ab", ("images",), ("a", "a"), ("a", 1), ("a", "b", "c")])
def test_names_are_two_different_texts(shards: str, names: Any) -> None:
    with pytest.raises(UsageError, match=r'`?names`?.*give two names, such as \("pixel_values", "labels"\)'):
        shardkit.dataset(shards).decode(size=8).batch(2).to_torch(names=names)


@pytest.mark.parametrize("map_style", [False, True])
def test_names_need_decoded_images(shards: str, map_style: Any) -> None:
    with pytest.raises(UsageError, match="the images are not decoded"):
        shardkit.dataset(shards).to_torch(map_style=map_style, names=NAMES)
    mapped = shardkit.dataset(shards).decode(size=8).map(lambda sample: sample["__key__"])
    with pytest.raises(UsageError, match=r"map\(\) returned str"):
        next(iter(mapped.to_torch(map_style=map_style, names=NAMES)))
