from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, StateError, UsageError, WorkerError
from shardkit.reading.order import ranks

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from shardkit.adapters.torch import iterable, parcel  # noqa: E402

WORKERS = [(0, None), (1, "fork"), (2, "fork"), (3, "fork")]


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 images of 8 x 8 in 2 classes, in 4 shards; the prefix."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("cars"), np.random.default_rng(0)
    for name, count in (("blue", 20), ("red", 40)):
        (root / "tree" / name).mkdir(parents=True)
        for number in range(count):
            sink = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(sink, "JPEG")
            (root / "tree" / name / f"{number:02}.jpg").write_bytes(sink.getvalue())
    shardkit.pack(root / "tree", root / "cars", max_count=15, workers=1)
    return str(root / "cars")


@pytest.fixture(autouse=True)
def _small_batches_go_through_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "INLINE_BYTES", 64)


@pytest.fixture(autouse=True)
def _workers_are_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        yield


def batches(prefix: str, **options: Any) -> Dataset:
    made = shardkit.dataset(prefix, **{"shuffle": 16, "lanes": 12, "threads": 1, **options})
    return made.decode(size=8, crop="random", flip=True).batch(4)


def keys(items: Any) -> list[list[str]]:
    return [list(item.keys) for item in items]


def epochs_of(dataset: Dataset, count: int) -> list[list[list[str]]]:
    return [keys(dataset) for _ in range(count)]


def pixels(items: Any) -> list[bytes]:
    """What tells batches and epochs apart where a plain DataLoader has made lists of them."""
    return [np.asarray(images).tobytes() for images, _ in items]


def pixels_of(dataset: Dataset, count: int) -> list[list[bytes]]:
    return [pixels(dataset) for _ in range(count)]


def test_batches_are_tensors_with_keys_and_share_the_arrays(cars: str) -> None:
    loaded = list(batches(cars).to_torch())
    for ours, theirs in zip(batches(cars), loaded, strict=True):
        images, labels = theirs
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(images, torch.from_numpy(ours.images))
        assert labels.tolist() == ours.labels.tolist()
        assert theirs.keys == ours.keys


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_from_a_store_as_one_process_does(cars: str, http_folder: Any, context: str) -> None:
    for path in Path(cars).parent.glob("cars[-.]*"):
        (http_folder.folder / path.name).write_bytes(path.read_bytes())
    far = batches(f"{http_folder.url}/cars", storage_options=http_folder.options)
    assert keys(far) == keys(batches(cars))  # and its store has been used before the workers are forked
    loader = far.to_torch().loader(num_workers=2, multiprocessing_context=context)
    assert [keys(loader) for _ in range(2)] == epochs_of(batches(cars), 3)[1:]


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_a_loader_gives_the_same_epochs_for_any_number_of_workers(cars: str, workers: int, context: Any) -> None:
    loader = batches(cars).to_torch().loader(num_workers=workers, multiprocessing_context=context)
    assert len(loader) == 15
    assert [keys(loader) for _ in range(2)] == epochs_of(batches(cars), 2)


@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_epochs_go_on_with_plain_dataloaders_of_all_kinds(cars: str, context: str, persistent: bool) -> None:
    expected = pixels_of(batches(cars), 6)
    source = batches(cars).to_torch()
    loader = DataLoader(
        source, batch_size=None, num_workers=2, multiprocessing_context=context, persistent_workers=persistent
    )
    assert [pixels(loader) for _ in range(2)] == expected[:2]
    source.set_epoch(5)
    assert pixels(loader) == expected[5]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_that_were_never_asked_for_anything_count_on_too(cars: str, persistent: bool) -> None:
    """One look at the first batch, as in `next(iter(loader))`, is an epoch for all workers."""
    loader = DataLoader(
        batches(cars).to_torch(), batch_size=None, num_workers=3, prefetch_factor=1, persistent_workers=persistent,
        multiprocessing_context="fork",
    )  # fmt: skip
    expected = pixels_of(batches(cars), 3)
    for epoch in range(2):
        assert pixels([next(iter(loader))]) == expected[epoch][:1]
    assert pixels(loader) == expected[2]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
@pytest.mark.parametrize("persistent", [False, True])
def test_set_epoch_on_a_loader(cars: str, workers: int, context: Any, persistent: bool) -> None:
    options = {"multiprocessing_context": context, "persistent_workers": persistent} if workers else {}
    loader = batches(cars).to_torch().loader(num_workers=workers, **options)
    expected = epochs_of(batches(cars), 4)
    for epoch in (3, 1):
        loader.set_epoch(epoch)
        assert keys(loader) == expected[epoch]
    assert keys(loader) == expected[2]


@pytest.mark.parametrize("own", [False, True], ids=["DataLoader", "loader"])
def test_persistent_workers_read_in_the_layout_of_a_state_that_is_loaded_later(cars: str, own: bool) -> None:
    def of_rank(rank: int, world: int) -> Any:
        return shardkit.dataset(cars, shuffle=20, rank=rank, world_size=world, threads=1).batch(5)

    state = of_rank(0, 4).state_dict()
    alone = of_rank(0, 1)
    alone.load_state_dict(state)
    source = of_rank(0, 1).to_torch()
    options: dict[str, Any] = {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True}
    loader = source.loader(**options) if own else DataLoader(source, batch_size=None, **options)
    assert len(list(loader)) == len(source)
    (loader if own else source).load_state_dict(state)
    expected = [key for batch in alone for key in batch["__key__"]]
    assert [key for batch in loader for key in batch["__key__"]] == expected


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_repeat_in_workers_goes_through_all_epochs_in_order(cars: str, workers: int) -> None:
    dataset = batches(cars).take(7).repeat(3)
    expected = epochs_of(batches(cars).take(7).repeat(3), 2)
    loader = dataset.to_torch().loader(num_workers=workers, multiprocessing_context="fork")
    assert len(loader) == 21
    assert [keys(loader) for _ in range(2)] == expected
    again = batches(cars).take(7).repeat(3).to_torch()
    plain = DataLoader(again, batch_size=None, num_workers=workers, multiprocessing_context="fork")
    assert [pixels(plain) for _ in range(2)] == pixels_of(batches(cars).take(7).repeat(3), 2)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 3])
def test_a_loader_is_resumed_at_the_next_batch_with_another_number_of_workers(
    cars: str, before: int, after: int
) -> None:
    """What the workers made ahead does not count. With repeat(), over the end of an epoch as well."""

    def loader(workers: int) -> Any:
        options = {"multiprocessing_context": "fork"} if workers else {}
        return batches(cars).repeat(2).to_torch().loader(num_workers=workers, **options)

    expected = epochs_of(batches(cars).repeat(2), 2)
    for stop in (0, 4, 15, 22, 30):
        first = loader(before)
        iterator = iter(first)
        found = keys(next(iterator) for _ in range(stop))
        state = json.loads(json.dumps(first.state_dict()))
        assert (state["epoch"], state["items"]) == divmod(stop, 15) or stop in (15, 30)
        del iterator
        second = loader(after)
        second.load_state_dict(state)
        assert found + keys(second) == expected[0]
        assert keys(second) == expected[1]


def test_pixels_go_on_bit_for_bit_over_a_change_of_ranks_and_workers(cars: str) -> None:
    expected = {
        key: image.tobytes()
        for batch in batches(cars)
        for key, image in zip(batch.keys, batch.images, strict=True)
    }  # fmt: skip
    loaders = [
        batches(cars, rank=rank, world_size=2).to_torch().loader(num_workers=2, multiprocessing_context="fork")
        for rank in (0, 1)
    ]
    found: list[tuple[str, bytes]] = []

    def keep(items: Any) -> None:
        found.extend((k, i.numpy().tobytes()) for b in items for k, i in zip(b.keys, b.images, strict=True))

    states = []
    for loader in loaders:
        iterator = iter(loader)
        keep(next(iterator) for _ in range(3))
        states.append(loader.state_dict())
        del iterator
    for rank in range(3):
        resumed = batches(cars, rank=rank, world_size=3).to_torch().loader()
        resumed.load_state_dict(states[0])
        keep(resumed)
    assert len(found) == 60
    assert dict(found) == expected


def test_single_samples_are_resumed_too(cars: str) -> None:
    dataset = shardkit.dataset(cars, shuffle=16)
    expected = [sample["__key__"] for sample in dataset]
    loader = shardkit.dataset(cars, shuffle=16).to_torch().loader(num_workers=2, multiprocessing_context="fork")
    iterator = iter(loader)
    found = [next(iterator)["__key__"] for _ in range(11)]
    del iterator
    resumed = shardkit.dataset(cars, shuffle=16).to_torch().loader(num_workers=3, multiprocessing_context="fork")
    resumed.load_state_dict(loader.state_dict())
    assert found + [sample["__key__"] for sample in resumed] == expected


def test_a_state_with_filter_and_workers_is_refused_with_the_cure(cars: str) -> None:
    dataset = shardkit.dataset(cars, shuffle=16).filter(lambda sample: sample["cls"] == 1)
    loader = dataset.to_torch().loader(num_workers=2, multiprocessing_context="fork")
    assert sorted(sample["__key__"] for sample in loader) == [f"red/{number:02}" for number in range(40)]
    with pytest.raises(StateError, match="workers are at different positions; use num_workers=0"):
        loader.state_dict()


def test_a_state_with_filter_and_one_worker_is_that_of_the_worker(cars: str) -> None:
    dataset = shardkit.dataset(cars, shuffle=16).filter(lambda sample: sample["cls"] == 1)
    loader = dataset.to_torch().loader(num_workers=1, multiprocessing_context="fork")
    keys = [sample["__key__"] for _, sample in zip(range(5), loader, strict=False)]
    resumed = shardkit.dataset(cars, shuffle=16).filter(lambda sample: sample["cls"] == 1)
    resumed.load_state_dict(loader.state_dict())
    assert len({*keys, *(sample["__key__"] for sample in resumed)}) == 40


def test_take_behind_filter_is_not_for_workers(cars: str) -> None:
    dataset = shardkit.dataset(cars).filter(lambda sample: True).take(5)
    assert len(list(dataset.to_torch().loader())) == 5
    with pytest.raises(UsageError, match="call them before filter"):
        list(dataset.to_torch().loader(num_workers=2, multiprocessing_context="fork"))


def test_what_a_plain_dataloader_has_delivered_is_not_known_and_that_is_said(cars: str) -> None:
    source = batches(cars).to_torch()
    loader = DataLoader(source, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert source.state_dict()["samples"] == 0
    list(loader)
    with pytest.raises(StateError, match=r"take the state of to_torch\(\)\.loader"):
        source.state_dict()


def test_a_plain_dataloader_goes_on_from_a_loaded_state(cars: str) -> None:
    dataset = batches(cars)
    expected = pixels_of(batches(cars), 2)
    iterator = iter(dataset)
    for _ in range(6):
        next(iterator)
    for workers in (0, 2):
        source = batches(cars).to_torch()
        source.load_state_dict(dataset.state_dict())
        source.set_epoch(0)  # as a loop over epochs does, with the one that was resumed
        options = {"multiprocessing_context": "fork"} if workers else {}
        loader = DataLoader(source, batch_size=None, num_workers=workers, **options)
        assert pixels(loader) == expected[0][6:]
        assert pixels(loader) == expected[1]


def test_a_torch_dataset_alone_tells_where_it_is(cars: str) -> None:
    source, resumed = batches(cars).to_torch(), batches(cars).to_torch()
    iterator = iter(source)
    for _ in range(5):
        next(iterator)
    resumed.load_state_dict(source.state_dict())
    assert keys(resumed) == epochs_of(batches(cars), 1)[0][5:]


def test_workers_started_anew_know_the_rank_of_their_process(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`spawn` workers have no process group that they could ask, and maybe nothing in their environment."""
    monkeypatch.setattr(ranks, "_from_torch", lambda: (1, 2, "torch.distributed"))
    mine = batches(cars)
    loader = mine.to_torch().loader(num_workers=1, multiprocessing_context="spawn")
    found = keys(loader)
    assert len(found) == 8
    assert found == epochs_of(batches(cars, rank=1, world_size=2), 1)[0]
    assert mine.reading.rank is None


def test_options_that_batch_again_are_refused(cars: str) -> None:
    with pytest.raises(UsageError, match="the dataset already yields batches"):
        batches(cars).to_torch().loader(batch_size=8)


def test_an_error_in_a_worker_reaches_the_caller(cars: str) -> None:
    loader = batches(cars).map(lambda batch: 1 // 0).to_torch().loader(num_workers=2, multiprocessing_context="fork")
    with pytest.raises(ZeroDivisionError, match="Caught ZeroDivisionError in DataLoader worker"):
        list(loader)


def test_shards_without_a_manifest_are_shared_by_workers(cars: str, tmp_path: Path) -> None:
    for path in Path(cars).parent.glob("cars-*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset = shardkit.dataset(str(tmp_path / "cars-*.tar"), shuffle=8)
    loader = dataset.to_torch().loader(num_workers=3, multiprocessing_context="fork")
    for _ in range(2):
        assert len({sample["__key__"] for sample in loader}) == 60
    with pytest.raises(shardkit.DatasetError, match="shardkit index"):
        loader.state_dict()


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_the_stateful_dataloader_of_torchdata_resumes_in_its_workers(cars: str) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    expected = pixels_of(batches(cars), 2)
    for workers in (0, 2):
        for stop in (0, 5, 14):
            options = {"multiprocessing_context": "fork"} if workers else {}
            loaders = [
                stateful.StatefulDataLoader(batches(cars).to_torch(), batch_size=None, num_workers=workers, **options)
                for _ in range(2)
            ]
            iterator = iter(loaders[0])
            for _ in range(stop):
                next(iterator)
            loaders[1].load_state_dict(loaders[0].state_dict())
            assert pixels(loaders[1]) == expected[0][stop:]
            assert pixels(loaders[1]) == expected[1]
            del iterator


@pytest.mark.filterwarnings("ignore")  # of Lightning itself
def test_a_worker_that_has_finished_an_epoch_says_so_in_its_state(cars: str) -> None:
    """The next iteration of such a worker begins the next epoch, here and where its state is loaded."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    expected = pixels_of(batches(cars), 3)

    def loader() -> Any:
        made = batches(cars).to_torch()
        return stateful.StatefulDataLoader(made, batch_size=None, num_workers=2, multiprocessing_context="fork")

    first, second = loader(), loader()
    assert pixels(first) == expected[0]
    state = first.state_dict()
    assert pixels(first) == expected[1]
    second.load_state_dict(state)
    assert [pixels(second), pixels(second)] == expected[1:]


def test_a_worker_forgets_where_it_was_when_its_epoch_is_over(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = batches(cars).to_torch()
    monkeypatch.setattr(iterable, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    iterator = iter(source)
    for made in range(1, 6):
        next(iterator)
        assert (source.state_dict()["at"]["epoch"], source.state_dict()["at"]["taken"]) == (0, 4 * made)
    assert len(list(iterator)) == 10
    assert (source.state_dict()["at"]["epoch"], source.state_dict()["at"]["taken"]) == (1, 0)


def test_a_worker_that_goes_on_counts_what_take_let_through_before(cars: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def source() -> Any:
        odd = shardkit.dataset(cars, shuffle=8, seed=1).filter(lambda sample: sample["__key__"][-1] in "13579")
        return odd.skip(2).take(9).filter(lambda sample: sample["__key__"][-1] != "3").to_torch()

    monkeypatch.setattr(iterable, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    expected = [sample["__key__"] for sample in source()]
    assert 3 < len(expected) < 9
    for stop in range(len(expected) + 1):
        first, second = source(), source()
        iterator = iter(first)
        assert [next(iterator)["__key__"] for _ in range(stop)] == expected[:stop]
        second.load_state_dict(first.state_dict())
        assert [sample["__key__"] for sample in second] == expected[stop:]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's, of what Lightning calls
@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__`:UserWarning")  # Lightning's, on rank 0
def test_lightning_takes_a_loader_as_stateful_and_moves_its_batches(cars: str) -> None:
    pytest.importorskip("lightning")
    from lightning.fabric.utilities.data import has_len
    from lightning.fabric.utilities.types import _Stateful
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
    from lightning_utilities.core.apply_func import apply_to_collection

    loader = batches(cars).to_torch().loader()
    assert isinstance(loader, _Stateful)
    assert has_len(loader)
    combined = CombinedLoader(loader)
    iterator = iter(combined)
    for _ in range(5):
        next(iterator)
    (state,) = combined._state_dicts()
    resumed = CombinedLoader(batches(cars).to_torch().loader())
    resumed._load_state_dicts([state])
    assert keys(item for item, _, _ in resumed) == epochs_of(batches(cars), 1)[0][5:]
    images, labels = apply_to_collection(next(iter(loader)), torch.Tensor, lambda tensor: tensor + 1)
    assert images.shape[0] == labels.shape[0] == 4


@pytest.fixture
def spoiled(tmp_path: Path, draw_image: Any) -> str:
    """24 images in order, of which 4 … 7, a whole batch of 4, and 13 are cut; the prefix."""
    (tmp_path / "tree" / "a").mkdir(parents=True)
    for number in range(24):
        data = draw_image(number, size=(8, 8))
        cut = number in range(4, 8) or number == 13
        (tmp_path / "tree" / "a" / f"{number:02}.jpg").write_bytes(data[: len(data) // 2] if cut else data)
    shardkit.pack(tmp_path / "tree", tmp_path / "spoiled", workers=1, check="none", shuffle=False)
    return str(tmp_path / "spoiled")


@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_a_batch_without_one_good_image_leaves_the_others_in_order(spoiled: str, workers: int, context: Any) -> None:
    source = shardkit.dataset(spoiled, threads=1).decode(size=8, on_error="skip").batch(4)
    expected = keys(source)
    assert [len(batch) for batch in expected] == [4, 4, 3, 4, 4]
    loader = source.to_torch().loader(num_workers=workers, multiprocessing_context=context)
    assert [keys(loader) for _ in range(2)] == [expected] * 2
    for count in range(1, 5):
        stopped, begun = source.to_torch().loader(num_workers=workers, multiprocessing_context=context), []
        for batch in stopped:
            begun.append(list(batch.keys))
            if len(begun) == count:
                break
        again = source.to_torch().loader(num_workers=workers, multiprocessing_context=context)
        again.load_state_dict(stopped.state_dict())
        assert begun + keys(again) == expected


class Unpassable:
    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("plain", [False, True])
def test_a_batch_that_a_worker_cannot_pass_is_an_error_here(cars: str, workers: int, plain: bool) -> None:
    source = batches(cars).map(lambda batch: {"images": batch.images, "odd": [Unpassable()]}).to_torch()
    options: Any = {"num_workers": workers, "multiprocessing_context": "fork", "timeout": 20}
    loader = DataLoader(source, batch_size=None, **options) if plain else source.loader(**options)
    with pytest.raises(WorkerError, match=r"Unpassable can't be passed to the training process.*num_workers=0"):
        list(loader)


def test_a_batch_that_does_not_fit_into_shared_memory_is_an_error_here(
    cars: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm)")

    loader = DataLoader(batches(cars).to_torch(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(WorkerError, match=r"a batch of [\d,]+ bytes does not fit in shared memory .*--shm-size"):
        list(loader)


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_a_batch_or_an_end_that_did_not_arrive_is_never_a_shorter_epoch(lost: int) -> None:
    from shardkit.adapters.torch.loader import _complete, _Passed

    passed = [_Passed(0, 1), _Passed(1, 1), _Passed(0, 2), _Passed(1, 1, over=True), _Passed(0, 2, over=True)]
    assert list(_complete(passed, 2)) == passed[:3]
    del passed[lost]
    with pytest.raises(WorkerError, match="did not arrive"):
        list(_complete(passed, 2))


def test_an_error_of_shardkit_in_a_worker_comes_as_it_is(spoiled: str) -> None:
    data = shardkit.dataset(spoiled, threads=1).decode(size=8).batch(4)
    with pytest.raises(shardkit.DecodeError) as here:
        list(data)
    with pytest.raises(shardkit.DecodeError) as there:
        list(data.to_torch().loader(num_workers=2, multiprocessing_context="fork"))
    assert there.value.args == here.value.args


def test_what_builds_a_loader_of_its_own_from_a_loader_gets_batches(cars: str) -> None:
    loader = batches(cars).to_torch().loader()
    rebuilt = DataLoader(loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn)
    assert keys(rebuilt) == keys(batches(cars))


def test_a_dataloader_that_would_make_batches_of_batches_is_refused(cars: str) -> None:
    with pytest.raises(UsageError, match=r"already yields batches.*pass batch_size=None"):
        next(iter(DataLoader(batches(cars).to_torch(), batch_size=2)))
    alone = DataLoader(batches(cars).to_torch(), batch_size=1, collate_fn=lambda items: items[0])
    assert keys(alone) == epochs_of(batches(cars), 1)[0]
