from __future__ import annotations

import gc
import os
import pickle
import signal
import warnings
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import Dataset, WorkerError

torch = pytest.importorskip("torch")

from shardkit.adapters.torch import exchange, loader, parcel  # noqa: E402
from shardkit.adapters.torch.exchange import Exchange, Sender  # noqa: E402
from shardkit.adapters.torch.parcel import Parcel  # noqa: E402
from shardkit.adapters.torch.tensors import TorchBatch  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """160 images of 48 x 48 in 2 classes; the prefix."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(160):
        folder = root / "tree" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(folder / f"{number:03}.jpg")
    shardkit.pack(root / "tree", root / "photos", workers=1)
    return str(root / "photos")


@pytest.fixture(autouse=True)
def _workers_are_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores
        yield


@pytest.fixture
def ends() -> tuple[Exchange, Sender]:
    """Both sides of a worker, in this process."""
    made = Exchange(1, 2)
    return made, made.sender(0, 2)


def batches(prefix: str, **options: Any) -> Dataset:
    return shardkit.dataset(prefix, shuffle=True, threads=1, **options).decode(size=32, crop="random").batch(8)


def passed(item: Any, sender: Sender) -> Any:
    return pickle.loads(ForkingPickler.dumps(Parcel(item, sender)))


def filled(sender: Sender, value: int, count: int = 8) -> Any:
    images = sender.empty((count, *SHAPE), np.uint8)
    images[:] = value
    return torch.from_numpy(images)


def mapped_files() -> int:
    """The number of mappings of an exchange's files in this process."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("shardkit-batches")


def with_extras(batch: Any) -> Any:
    """A batch with tensors of every kind, those made elsewhere and views of the images included."""
    images = torch.from_numpy(batch.images)
    more = {
        "images": images,
        "turned": images.movedim(-1, -3),
        "floats": images.float() / 255,
        "half": images.to(torch.bfloat16),
        "columns": images.float().movedim(1, 2),
        "flags": images > 100,
        "none": torch.empty((0, 3)),
        "number": torch.tensor(7.5),
        "spread": torch.ones((1, 3)).expand(64_000, 3),
        "labels": torch.from_numpy(batch.labels),
    }
    return more | {"nested": [(images[2:], batch.keys), {"again": images}], "mask": np.arange(9)}


def plain(item: Any) -> Any:
    """The item with the values, dtypes and strides of its tensors."""
    if isinstance(item, torch.Tensor):
        return item.dtype, item.stride(), item.double().numpy().tobytes()
    if isinstance(item, dict):
        return {name: plain(value) for name, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [plain(value) for value in item]
    return item.tolist() if isinstance(item, np.ndarray) else item


@pytest.mark.parametrize("shared", [True, False], ids=["slots", "torch's own way"])
@pytest.mark.parametrize("mapped", [False, True], ids=["batches", "map"])
def test_batches_are_the_same_in_both_ways(
    photos: str, monkeypatch: pytest.MonkeyPatch, shared: bool, mapped: bool
) -> None:
    data = batches(photos).map(with_extras) if mapped else batches(photos)
    expected = [[plain(item) for item in data.to_torch()] for _ in range(2)]
    data.set_epoch(0)
    if not shared:
        monkeypatch.setattr(loader, "open_exchange", lambda *_: None)
    found = data.to_torch().loader(num_workers=2, multiprocessing_context="fork")
    assert [[plain(item) for item in found] for _ in range(2)] == expected


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_a_started_worker_gets_the_memory_too(photos: str, context: str) -> None:
    expected = [plain(item) for item in batches(photos).to_torch()]
    found = batches(photos).to_torch().loader(num_workers=1, multiprocessing_context=context)
    iterator = iter(found)
    items = [next(iterator)]
    assert mapped_files()
    items.extend(iterator)
    assert [plain(item) for item in items] == expected


def test_small_shared_memory_does_not_matter(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm)")

    found = (
        batches(photos).map(with_extras).to_torch().loader(num_workers=2, multiprocessing_context="fork", timeout=60)
    )
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert len(list(found)) == 20


def test_slots_are_used_again(photos: str) -> None:
    found = batches(photos).repeat(3).to_torch().loader(num_workers=1, multiprocessing_context="fork")
    addresses = [batch.images.data_ptr() for batch in found]
    assert len(addresses) == 60
    assert len(set(addresses)) < 20


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_that_are_kept_are_never_overwritten(
    photos: str, monkeypatch: pytest.MonkeyPatch, persistent: bool
) -> None:
    monkeypatch.setattr(exchange, "KEPT", 1)
    data = batches(photos).repeat(2)
    expected = [plain(item) for _ in range(2) for item in data.to_torch()]
    data.set_epoch(0)
    options: Any = {"multiprocessing_context": "fork", "persistent_workers": persistent}
    found = data.to_torch().loader(num_workers=2, **options)
    kept = [item for _ in range(2) for item in found]
    assert [plain(item) for item in kept] == expected


class Keeps:
    """A function of map() that keeps all batches, and returns the one before the last."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, batch: Any) -> Any:
        self.kept.append(batch)
        return self.kept[-2:][0]


def test_what_a_function_in_the_worker_keeps_is_not_overwritten(photos: str) -> None:
    data = shardkit.dataset(photos, threads=1).decode(size=32).batch(8)
    expected = [batch.images.copy() for batch in data]
    found = data.map(Keeps()).to_torch().loader(num_workers=1, multiprocessing_context="fork")
    for batch, images in zip(found, [expected[0], *expected], strict=False):
        assert np.array_equal(batch.images.numpy(), images)


def test_an_abandoned_iteration_leaves_no_memory(photos: str) -> None:
    before, files = mapped_files(), len(os.listdir("/proc/self/fd"))
    found = batches(photos).to_torch().loader(num_workers=2, multiprocessing_context="fork")
    for _, batch in zip(range(3), found, strict=False):
        assert len(batch.images) == 8
    kept, pixels = batch.images, batch.images.tolist()
    del found, batch, _
    assert mapped_files() == before + 1
    assert kept.tolist() == pixels
    del kept
    assert mapped_files() == before
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files


def killed(batch: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    return batch


@pytest.mark.parametrize("pinned", [False, True])
def test_a_worker_that_is_killed_is_an_error_and_leaves_no_memory(photos: str, pinned: bool) -> None:
    before = mapped_files()
    data = batches(photos).map(killed).to_torch()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*pin_memory.*", UserWarning)
        found = data.loader(num_workers=2, multiprocessing_context="fork", pin_memory=pinned)
        with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly)"):
            list(found)
    del found
    assert mapped_files() == before


def test_a_lack_of_memory_is_an_error_that_says_what_helps(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def full_too(_: Any) -> None:
        raise RuntimeError("unable to allocate shared memory(shm)")

    found = batches(photos).to_torch().loader(num_workers=2, multiprocessing_context="fork", timeout=60)
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(torch.Tensor, "share_memory_", full_too)
    with pytest.raises(WorkerError, match=r"a batch of [\d,]+ bytes does not fit in shared memory .*--shm-size"):
        list(found)


def test_a_system_without_files_in_memory_uses_the_way_of_torch(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    found = batches(photos).to_torch().loader(num_workers=2, multiprocessing_context="fork")
    assert [plain(item) for item in found] == [plain(item) for item in batches(photos).to_torch()]
    assert not mapped_files()


# Both sides in this process


def test_a_sent_slot_is_free_when_the_last_tensor_on_it_is_gone(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    first = passed({"images": filled(sender, 1)}, sender)
    view = first["images"][3:]
    address = first["images"].data_ptr()
    second = passed(filled(sender, 2), sender)
    assert second.data_ptr() != address
    del first
    assert passed(filled(sender, 3), sender).data_ptr() != address
    assert view.unique().tolist() == [1]
    del view
    kept = [passed(filled(sender, number), sender) for number in range(3)]
    assert address in [images.data_ptr() for images in kept]
    assert second.unique().tolist() == [2]


def test_a_slot_that_is_sent_twice_is_copied_the_second_time(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    images = filled(sender, 1)
    first, second = passed(images, sender), passed(images, sender)
    images[:] = 9
    del first
    assert second.unique().tolist() == [1]


def test_only_so_many_batches_are_kept_in_slots(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    kept = [passed(filled(sender, number), sender) for number in range(200)]
    assert [int(one[0, 0, 0, 0]) for one in kept] == list(range(200))
    (arena,) = sender.arenas
    assert arena.sent.sum() <= arena.count // 2 + 1


def test_larger_batches_get_larger_slots_and_the_memory_of_smaller_ones_is_returned(
    ends: tuple[Exchange, Sender],
) -> None:
    made, sender = ends
    file, kept = made.files[0].number, {}
    for count in (8, 40, 200, 8):
        kept[count] = passed(filled(sender, count, count), sender)
    for count, images in kept.items():
        assert images.shape == (count, *SHAPE)
        assert images.unique().tolist() == [count]
    used = os.fstat(file).st_blocks
    kept.clear()
    filled(sender, 0)
    assert os.fstat(file).st_blocks < used


def test_a_batch_that_is_not_received_costs_one_slot(ends: tuple[Exchange, Sender]) -> None:
    made, sender = ends
    for _ in range(2 * made.prefetched):
        Parcel(filled(sender, 1), sender)
    assert passed(filled(sender, 2), sender).unique().tolist() == [2]


def test_without_a_free_slot_the_way_of_torch_is_taken(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    held = [filled(sender, number) for number in range(100)]
    sent = [passed(images, sender) for images in held]
    assert [int(images[0, 0, 0, 0]) for images in sent] == list(range(100))


def test_a_tensor_that_is_more_than_numbers_keeps_what_it_is(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    weights = torch.nn.Parameter(torch.ones(10_000))
    found = passed({"weights": weights, "real": torch.ones(3, dtype=torch.complex64).conj()}, sender)
    assert type(found["weights"]) is torch.nn.Parameter
    assert found["weights"].requires_grad
    assert found["real"].tolist() == [1, 1, 1]


def test_a_batch_keeps_its_type_fields_and_writable_tensors(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    batch = TorchBatch(filled(sender, 5), torch.arange(8), keys=list("abcdefgh"), fields={"txt": ["x"] * 8})
    found = passed(batch, sender)
    assert type(found) is TorchBatch
    assert (found.keys, found.txt) == (list("abcdefgh"), ["x"] * 8)
    found.images.add_(1)
    found.labels.add_(1)
    assert found.images.unique().tolist() == [6]
    assert found.labels.tolist() == list(range(1, 9))


def test_a_forked_process_returns_no_slot_of_its_parent(ends: tuple[Exchange, Sender]) -> None:
    _, sender = ends
    kept = [passed(filled(sender, 1), sender)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        kept.clear()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert sender.arenas[0].sent.sum() == 1


def test_a_closed_exchange_keeps_only_the_slots_in_use(ends: tuple[Exchange, Sender]) -> None:
    made, sender = ends
    kept = [passed(filled(sender, number), sender) for number in range(4)]
    del kept[1:]
    made.close()
    one = 8 * 32 * 32 * 3 // 512
    assert os.fstat(made.files[0].number).st_blocks <= one + exchange.PAGE // 512 * 2
    assert kept[0].unique().tolist() == [0]
    kept.clear()
    assert os.fstat(made.files[0].number).st_blocks < one


def test_large_tensors_only_are_in_slots(ends: tuple[Exchange, Sender], monkeypatch: pytest.MonkeyPatch) -> None:
    _, sender = ends
    small = passed(torch.arange(10), sender)
    assert small.tolist() == list(range(10))
    assert not sender.arenas
    monkeypatch.setattr(parcel, "INLINE_BYTES", 8)
    assert passed(torch.arange(10), sender).tolist() == list(range(10))
    assert sender.arenas
