"""Batches of encoded images: the bytes of the files, and the boxes and flips of decode()."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import shardkit
from shardkit import DamagedError, Dataset, DatasetError, DecodeError, EncodedBatch, UsageError
from shardkit.images.crops import RANDOM_DRAWS, BoxRange, random_box
from shardkit.images.orientation import TAG
from shardkit.native import load
from shardkit.reading.batches import encoded
from shardkit.reading.batches.crops import _random_boxes

needs_samples = pytest.mark.skipif(load("samples")[0] is None, reason="shardkit was built without its C parts")

Chain = Callable[[Dataset[Any]], Dataset[Any]]

CHAINS: dict[str, Chain] = {
    "as they are": lambda data: data.batch(8, encoded=True),
    "in threads": lambda data: data.batch(8, encoded=True).map(lambda batch: batch),
    "through a filter": lambda data: data.filter(lambda sample: True).batch(8, encoded=True),
    "through a map": lambda data: data.map(lambda sample: sample).batch(8, encoded=True),
}


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """60 JPEGs of many sizes, packed into 3 shards; the prefix."""
    root, rng = tmp_path_factory.mktemp("varied"), np.random.default_rng(0)
    for number in range(60):
        size = rng.integers(20, 90, 2).tolist()
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        path = root / "tree" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    shardkit.pack(root / "tree", root / "varied", max_count=20, workers=1)
    return str(root / "varied")


@pytest.fixture(params=["in C", "in Python"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the C extension, once without."""
    if request.param == "in Python":
        monkeypatch.setattr(encoded, "load", lambda name: (None, ""))


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("verify", [None, False], ids=["verified", "not verified"])
def test_the_images_are_the_bytes_of_the_samples(varied: str, chain: Chain, verify: bool | None) -> None:
    data = shardkit.dataset(varied, shuffle=20, seed=1, verify=verify)
    samples = list(data)
    data.set_epoch(0)
    found = 0
    for batch in chain(data):
        own = samples[found : found + len(batch)]
        found += len(batch)
        assert isinstance(batch, EncodedBatch)
        assert batch.keys == [sample["__key__"] for sample in own]
        assert batch.labels is not None
        assert batch.labels.tolist() == [sample["cls"] for sample in own]
        assert [view.tobytes() for view in batch.views] == [sample["jpg"] for sample in own]
        assert [image.tobytes() for image in batch.images] == [sample["jpg"] for sample in own]
        assert batch.data.tobytes() == b"".join(sample["jpg"] for sample in own)
        assert batch.offsets.tolist() == np.cumsum([0, *(len(sample["jpg"]) for sample in own)]).tolist()
        assert batch.sizes.tolist() == [len(sample["jpg"]) for sample in own]
        assert batch.shapes.tolist() == [[*Image.open(io.BytesIO(s["jpg"])).size][::-1] for s in own]
        assert batch.extensions == ["jpg"] * len(own)
        assert batch.fields == {}
        assert batch.repeats is None
    assert found == 60


def test_its_arrays_have_the_documented_types(varied: str) -> None:
    batch = next(iter(shardkit.dataset(varied).batch(8, encoded=True)))
    assert (batch.data.dtype, batch.offsets.dtype, batch.sizes.dtype) == (np.uint8, np.int64, np.int64)
    assert (batch.shapes.dtype, batch.shapes.shape) == (np.int32, (8, 2))
    assert batch.data.flags.writeable
    assert not batch.views[0].flags.writeable
    assert all(image.base is not None and np.shares_memory(image, batch.data) for image in batch.images)
    crops = batch.crops(size=9, crop="random", flip="both")
    assert (crops.boxes.dtype, crops.boxes.shape) == (np.int32, (8, 4))
    assert (crops.flips.dtype, crops.vertical_flips.dtype, crops.flips.shape) == (np.bool_, np.bool_, (8,))


def test_views_are_in_the_mapped_shard_and_are_not_copied(varied: str) -> None:
    data = shardkit.dataset(varied)
    batch = next(iter(data.batch(8, encoded=True)))
    mapped: Any = data.content.catalog
    whole = np.frombuffer(mapped.access.shards.buffer(0), np.uint8)
    assert all(np.shares_memory(view, whole) for view in batch.views)
    assert "data" not in batch.__dict__


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize(
    "options",
    [
        {"size": 24, "crop": "random", "flip": True}, {"size": (20, 30), "crop": "random", "scale": (0.5, 1.0)},
        {"size": 24, "crop": "center", "flip": "both"}, {"size": 24, "flip": "vertical"}, {"size": 24},
        {"size": (20, 30), "crop": "cover"}, {"size": 24, "crop": "random-cover", "flip": True},
        {"size": 24, "crop": "random", "ratio": (3.0, 4.0), "scale": (0.9, 1.0)},
    ],
    ids=[
        "random", "random with scale", "center", "vertical", "resize", "cover", "random cover",
        "random that rarely fits",
    ],
)  # fmt: skip
def test_boxes_and_flips_are_those_of_decode(varied: str, chain: Chain, options: dict[str, Any]) -> None:
    for epoch in (0, 3):
        data = shardkit.dataset(varied, shuffle=20, seed=5)
        decoded = data.decode(exact=True, **options).batch(8)
        data.set_epoch(epoch)
        decoded.set_epoch(epoch)
        batches = chain(data)
        batches.set_epoch(epoch)
        size = options["size"] if isinstance(options["size"], tuple) else (options["size"],) * 2
        for batch, expected in zip(batches, decoded, strict=True):
            assert batch.keys == expected.keys
            crops = batch.crops(**options)
            columns = zip(batch.views, crops.boxes.tolist(), crops.flips, crops.vertical_flips, strict=True)
            for number, (view, (top, left, height, width), flip, vertical) in enumerate(columns):
                box = (left, top, left + width, top + height)
                image = Image.open(io.BytesIO(view)).resize(size[::-1], Image.Resampling.BILINEAR, box)
                pixels = np.asarray(image)[:: -1 if vertical else 1, :: -1 if flip else 1]
                assert np.array_equal(pixels, expected.images[number])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_boxes_of_upright_images_are_those_of_decode(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[TAG] = orientation
        path = tmp_path / "tree" / "a" / f"{orientation}.{'jpg' if name == 'JPEG' else name.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, name, exif=exif, **({"lossless": True} if name == "WEBP" else {}))
    shardkit.pack(tmp_path / "tree", tmp_path / "turned", workers=1)
    data = shardkit.dataset(tmp_path / "turned")
    options: dict[str, Any] = {"size": 16, "crop": "random", "flip": True, "orientation": True}
    (expected,) = data.decode(exact=True, **options).batch(8)
    (batch,) = data.batch(8, encoded=True)
    crops = batch.crops(**options)
    for number, (view, (top, left, height, width)) in enumerate(zip(batch.views, crops.boxes.tolist(), strict=True)):
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(view)))
        box = (left, top, left + width, top + height)
        found = np.asarray(upright.resize((16, 16), Image.Resampling.BILINEAR, box))
        assert np.array_equal(found[:, :: -1 if crops.flips[number] else 1], expected.images[number])


def test_an_image_whose_orientation_can_not_be_read_is_named(cars: str) -> None:
    data = shardkit.dataset(cars).map(lambda sample: sample | {"jpg": b"GIF89a"})
    batch = next(iter(data.batch(2, encoded=True)))
    batch.shapes = np.ones((2, 2), np.int32)
    with pytest.raises(DecodeError, match="has no orientation") as caught:
        batch.crops(size=8, orientation=True)
    assert caught.value.key == batch.keys[0]


def test_boxes_are_the_same_after_resuming_and_on_any_number_of_ranks(varied: str) -> None:
    def boxes(batches: Any) -> dict[str, Any]:
        return {
            key: (box.tolist(), bool(flip))
            for batch in batches
            for crops in [batch.crops(size=24, crop="random", flip=True)]
            for key, box, flip in zip(batch.keys, crops.boxes, crops.flips, strict=True)
        }

    whole = shardkit.dataset(varied, shuffle=20, seed=2).batch(8, encoded=True)
    all_boxes = boxes(whole)
    found: dict[str, Any] = {}
    for rank in range(3):
        part = shardkit.dataset(varied, shuffle=20, seed=2, rank=rank, world_size=3, remainder="uneven")
        found |= boxes(part.batch(8, encoded=True))
    assert found == all_boxes
    again = shardkit.dataset(varied, shuffle=20, seed=2).batch(8, encoded=True)
    iterator = iter(again)
    first = boxes([next(iterator), next(iterator)])
    resumed = shardkit.dataset(varied, shuffle=20, seed=2).batch(8, encoded=True)
    resumed.load_state_dict(again.state_dict())
    assert first | boxes(resumed) == all_boxes


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=40),
    st.sampled_from([(0.08, 1.0), (0.9, 1.0), (0.01, 0.02)]),
    st.sampled_from([(3 / 4, 4 / 3), (0.2, 5.0), (1.0, 1.0), (3.0, 4.0)]),
    st.integers(0, 1000),
)
def test_boxes_of_many_images_are_those_of_each(
    shapes: list[tuple[int, int]], scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    draws = np.random.default_rng(seed).random((len(shapes), RANDOM_DRAWS))
    limits = BoxRange(scale, ratio)
    expected = [list(random_box(*shape, row, limits)) for shape, row in zip(shapes, draws.tolist(), strict=True)]
    assert _random_boxes(np.array(shapes, np.int32), draws, limits).tolist() == expected


def test_a_batch_can_be_pickled(varied: str) -> None:
    batch = next(iter(shardkit.dataset(varied).batch(8, encoded=True)))
    again = pickle.loads(pickle.dumps(batch))
    assert (again.keys, again.data.tobytes()) == (batch.keys, batch.data.tobytes())
    assert [view.tobytes() for view in again.views] == [view.tobytes() for view in batch.views]
    assert again.labels.tolist() == batch.labels.tolist() if batch.labels is not None else False
    options: dict[str, Any] = {"size": 24, "crop": "random", "flip": True}
    assert again.crops(**options).boxes.tolist() == batch.crops(**options).boxes.tolist()


@pytest.mark.parametrize("form", ["tar", "tfrecord", "gzip", "fields-tar", "fields-tfrecord"])
@pytest.mark.parametrize("place", [0, 1], ids=["local", "remote"])
def test_every_format_and_place_gives_the_same_batches(pairs: Any, form: str, place: int) -> None:
    samples = list(shardkit.dataset(pairs[form][place], shuffle=30, seed=1))
    batches = list(shardkit.dataset(pairs[form][place], shuffle=30, seed=1).batch(10, encoded=True))
    assert b"".join(batch.data.tobytes() for batch in batches) == b"".join(sample["jpg"] for sample in samples)
    others = sorted({name for sample in samples for name in sample} - {"__key__", "__url__", "jpg", "cls"})
    for name in others:
        found = [value for batch in batches for value in batch[name]]
        assert found == [sample.get(name) for sample in samples]
    assert all(sorted(batch.fields) == others for batch in batches)


def test_a_class_directory_combined_datasets_and_streams_have_them_too(small_tree: Path, cars: str) -> None:
    (both,) = shardkit.concat([shardkit.dataset(cars), shardkit.dataset(small_tree)]).batch(200, encoded=True)
    assert both.shapes.tolist() == [[10, 12]] * 194 or both.shapes.tolist() == [[12, 10]] * 194
    assert len(both.crops(size=8, crop="random").boxes) == 194
    (tree,) = shardkit.dataset(small_tree).batch(200, encoded=True)
    assert tree.data.tobytes() == both.data[both.offsets[97] :].tobytes()


def test_a_damaged_image_is_reported_when_it_is_used(varied: str, tmp_path: Path) -> None:
    for path in Path(varied).parent.glob("varied*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
    catalog: Any = shardkit.dataset(tmp_path / "varied").content.catalog
    block = catalog.block(np.array([3]))
    with open(catalog.files()[0].location.path, "r+b") as file:
        file.seek(int(block.spans.starts[0]) + 30)
        file.write(b"\0\1\2\3\4\5")
    for use in ("data", "views"):
        batch = next(iter(shardkit.dataset(tmp_path / "varied").batch(8, encoded=True)))
        for _ in range(2):
            with pytest.raises(DamagedError, match="checksum") as caught:
                getattr(batch, use)
            assert caught.value.key == block.keys[0]
    batch = next(iter(shardkit.dataset(tmp_path / "varied", verify=False).batch(8, encoded=True)))
    assert len(batch.data) == batch.sizes.sum()


def test_a_png_among_jpegs_is_told_by_its_extension(tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "a"
    tree.mkdir(parents=True)
    for number, name in enumerate(["png", "jpg", "png"]):
        Image.new("RGB", (30 + number, 20)).save(tree / f"{number}.{name}")
    shardkit.pack(tmp_path / "tree", tmp_path / "mixed", workers=1)
    (batch,) = shardkit.dataset(tmp_path / "mixed").batch(3, encoded=True)
    found = dict(zip(batch.keys, zip(batch.extensions, batch.shapes.tolist(), strict=True), strict=True))
    assert found == {"a/0": ("png", [20, 30]), "a/1": ("jpg", [20, 31]), "a/2": ("png", [20, 32])}
    kinds = {"png": "PNG", "jpg": "JPEG"}
    assert [Image.open(io.BytesIO(view)).format for view in batch.views] == [kinds[e] for e in batch.extensions]
    assert batch.crops(size=8, crop="center").boxes.shape == (3, 4)


def test_a_sample_without_an_image_is_named(tmp_path: Path) -> None:
    with shardkit.ShardWriter(tmp_path / "x") as writer:
        writer.write({"__key__": "good", "jpg": jpeg(), "cls": 1})
        writer.write({"__key__": "bare", "txt": b"no image", "cls": 1})
    data = shardkit.dataset(tmp_path / "x")
    with pytest.raises(DecodeError, match="no image") as caught:
        list(data.batch(2, encoded=True))
    assert caught.value.key == "bare"
    with pytest.raises(DatasetError, match="'bare' has no field with an encoded image"):
        list(data.filter(lambda sample: True).batch(2, encoded=True))
    kept = list(data.filter(lambda sample: "jpg" in sample).batch(2, encoded=True))
    assert [batch.keys for batch in kept] == [["good"]]


def members(path: Path, **files: bytes) -> str:
    """A tar of these members (`__` stands for the dot), with an index; its name."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    shardkit.index_shards(path)
    return str(path)


def test_labels_of_some_samples_only_are_refused(tmp_path: Path) -> None:
    data = shardkit.dataset(members(tmp_path / "x.tar", one__jpg=jpeg(), one__cls=b"1", two__jpg=jpeg()))
    with pytest.raises(DatasetError, match="'two' has none"):
        list(data.batch(2, encoded=True))
    (batch,) = data[1:].batch(2, encoded=True)
    assert batch.labels is None


@pytest.mark.parametrize("how", ["encoded", "decoded", "mapped", "skipped"])
def test_the_repeats_of_a_padded_rank_are_marked_in_the_batches_that_have_some(cars: str, how: str) -> None:
    data = shardkit.dataset(cars, rank=1, world_size=2, remainder="pad")
    decoded = data.decode(size=8, on_error="skip" if how == "skipped" else "raise")
    decoded = decoded.map(dict) if how == "mapped" else decoded
    batches = list(data.batch(40, encoded=True) if how == "encoded" else decoded.batch(40))
    assert [None if batch.repeats is None else int(batch.repeats.sum()) for batch in batches] == [None, 1]


def test_decode_before_and_after_it_is_refused(cars: str) -> None:
    with pytest.raises(UsageError, match=r"decode\(\) comes before it") as caught:
        shardkit.dataset(cars).decode(size=8).batch(4, encoded=True)
    assert "crops()" in str(caught.value)
    with pytest.raises(UsageError, match=r"decode\(\)"):
        shardkit.dataset(cars).batch(4, encoded=True).decode(size=8)


@pytest.mark.parametrize("size", [0, -1, 1.5, "8"])
def test_a_size_that_makes_no_sense_is_refused(cars: str, size: Any) -> None:
    with pytest.raises(UsageError, match="batch"):
        shardkit.dataset(cars).batch(size, encoded=True)


def test_crops_that_no_box_can_say_are_refused(cars: str) -> None:
    batch = next(iter(shardkit.dataset(cars).batch(4, encoded=True)))
    with pytest.raises(UsageError, match='crop="pad" shifts the image'):
        batch.crops(size=8, crop="pad")
    with pytest.raises(UsageError, match="size"):
        batch.crops(crop="random")


def test_an_option_that_crops_do_not_have_is_answered_with_those_that_they_have(cars: str) -> None:
    batch = next(iter(shardkit.dataset(cars).batch(2, encoded=True)))
    with pytest.raises(UsageError, match=r"crops\(\): got an unexpected keyword argument 'sizes'; did you mean `size`"):
        batch.crops(sizes=32)


def test_items_of_map_that_are_no_samples_are_refused(cars: str) -> None:
    with pytest.raises(DatasetError, match=r"map\(\) returned int"):
        list(shardkit.dataset(cars).map(lambda sample: 1).batch(4, encoded=True))


def test_an_image_without_a_size_is_named(cars: str) -> None:
    data = shardkit.dataset(cars).map(lambda sample: sample | {"jpg": b"not a JPEG"})
    batch = next(iter(data.batch(2, encoded=True)))
    assert batch.data.tobytes() == b"not a JPEG" * 2
    with pytest.raises(DecodeError, match="has no size") as caught:
        batch.crops(size=8, crop="random")
    assert caught.value.key == batch.keys[0]


def test_it_shows_itself_in_one_line(cars: str) -> None:
    batches = shardkit.dataset(cars).batch(4, encoded=True)
    assert ".batch(4, encoded=True)" in repr(batches)
    assert repr(next(iter(batches))).startswith("EncodedBatch(images=4, bytes=")


@needs_samples
def test_parts_that_do_not_fill_the_buffer_are_refused_in_c() -> None:
    join = load("samples")[0].join
    for datas, size in (([b"abc"], 4), ([b"abc", b"de"], 4), ([], 1)):
        with pytest.raises(ValueError, match="sizes differ"):
            join(datas, bytearray(size))
    with pytest.raises(ValueError, match="sizes differ"):
        join([b"abc"], bytearray(3), np.zeros(2, np.uint32))


@needs_samples
@pytest.mark.parametrize(
    "sizes",
    [[0], [1, 0, 5], [63, 64, 65, 16384, 16385], [6143, 6144, 6207, 6208, 12_351, 100_000], [700_001, 3, 900_000]],
)
def test_parts_of_any_size_are_copied_and_summed(sizes: list[int]) -> None:
    from shardkit.checksums import crc32c

    rng = np.random.default_rng(0)
    parts = [rng.bytes(size) for size in sizes]
    sums = np.array([crc32c(part) for part in parts], np.uint32)
    for known in (None, sums):
        data = np.empty(sum(sizes), np.uint8)
        assert encoded.join(parts, data, known) == []
        assert data.tobytes() == b"".join(parts)
    sums[-1] ^= 1
    assert encoded.join(parts, np.empty(sum(sizes), np.uint8), sums) == [len(parts) - 1]


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10)).save(file, "JPEG")
    return file.getvalue()
