"""Boxes and masks that move with their image, and batches of images of their own shapes."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shardkit
from shardkit import Boxes, Dataset, DecodeError, UsageError
from shardkit.images import fused

COUNT = 24

Change = Callable[[dict[str, Any], int], None]


def write(path: Path, change: Change = lambda sample, number: None) -> str:
    """PNGs with a white rectangle in each of 0 to 3 boxes; `json` has them, `mask.png` has the rectangles."""
    rng, samples = np.random.default_rng(0), []
    for number in range(COUNT):
        height, width = rng.integers(40, 80, 2).tolist()
        mask, boxes = np.zeros((height, width), np.uint8), []
        for at in range(number % 4):
            x, y = rng.integers(0, 20, 2).tolist()
            boxes.append([x, y, x + 8 + at, y + 12])
            mask[y : y + 12, x : x + 8 + at] = at + 1
        sinks = io.BytesIO(), io.BytesIO()
        Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2)).save(sinks[0], "PNG")
        Image.fromarray(mask).save(sinks[1], "PNG")
        text = {"boxes": boxes, "labels": list(range(len(boxes))), "names": ["x"] * len(boxes), "size": [height, width]}
        sample = {
            "__key__": f"{number:03}", "png": sinks[0].getvalue(), "mask.png": sinks[1].getvalue(),
            "json": json.dumps(text).encode(), "cls": number % 2,
        }  # fmt: skip
        change(sample, number)
        samples.append(sample)
    shardkit.write(samples, path / "shards", max_count=7)
    return str(path / "shards")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("objects"))


@pytest.fixture(params=["fused", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(fused, "available", lambda part="": False)


def detection(prefix: str, boxes: Any = "json/boxes", *, size: int = 5, **options: Any) -> Dataset[Any]:
    data = shardkit.dataset(prefix, shuffle=10, threads=2, **options)
    return data.decode(boxes=boxes, masks="mask.png", flip="both").batch(size, collate="list")


@pytest.mark.usefixtures("way")
def test_a_list_has_images_of_their_own_shapes_with_their_boxes_and_masks(objects: str) -> None:
    seen = 0
    for batch in detection(objects):
        assert isinstance(batch.images, list) and isinstance(batch.json, list) and batch.labels.dtype == np.int64
        for image, mask, target in zip(batch.images, batch["mask.png"], batch.json, strict=True):
            assert image.shape[:2] == mask.shape == tuple(target["size"])
            np.testing.assert_array_equal(image[:, :, 0], mask)
            assert target["boxes"].dtype == np.float32 and target["boxes"].shape == (len(target["labels"]), 4)
            for label, (left, top, right, bottom) in zip(
                target["labels"].tolist(), target["boxes"].astype(int), strict=True
            ):
                assert (mask[top:bottom, left:right] > 0).all() and mask[top, left] and label < 3
            seen += 1
    assert seen == COUNT


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("crop", ["resize", "random", "cover", "center", "random-cover", "pad"])
def test_boxes_and_masks_of_a_crop_hold_what_is_in_it(objects: str, crop: Any) -> None:
    data = shardkit.dataset(objects, shuffle=10)
    chain = data.decode(
        size=32, crop=crop, flip=True, padding=6 if crop == "pad" else None, interpolation="nearest", exact=True,
        boxes=Boxes("json/boxes", labels=["labels", "names"], least=3), masks=["mask.png"],
    )  # fmt: skip
    for batch in chain.batch(6):
        assert batch["mask.png"].shape == (len(batch.keys), 32, 32)
        np.testing.assert_array_equal(batch.images[..., 0], batch["mask.png"])
        for mask, target in zip(batch["mask.png"], batch.json, strict=True):
            assert len(target["boxes"]) == len(target["labels"]) == len(target["names"]) and len(target["size"]) == 2
            for left, top, right, bottom in target["boxes"]:
                assert 0 <= left < right <= 32 and 0 <= top < bottom <= 32
                inner = mask[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)]
                assert (inner > 0).all()


def test_ranks_resume_and_workers_give_the_same_lists(objects: str) -> None:
    whole = [
        (batch.keys, [target["boxes"].tolist() for target in batch.json]) for batch in detection(objects, layout=1)
    ]
    data = detection(objects, layout=1)
    items = iter(data)
    first = [next(items).keys for _ in range(2)]
    again = detection(objects, layout=1)
    again.load_state_dict(data.state_dict())
    rest = [(batch.keys, [target["boxes"].tolist() for target in batch.json]) for batch in again]
    assert first == [keys for keys, _ in whole[:2]] and rest == whole[2:]
    streams = [
        [item.keys for _, item in detection(objects, layout=1).run(0, worker=worker, workers=2)] for worker in (0, 1)
    ]
    assert [streams[at % 2][at // 2] for at in range(len(whole))] == [keys for keys, _ in whole]
    ranks = [
        [key for batch in detection(objects, layout=1, rank=r, world_size=2) for key in batch.keys] for r in (0, 1)
    ]
    assert sorted(ranks[0] + ranks[1]) == sorted(key for keys, _ in whole for key in keys)


def test_boxes_are_found_in_every_kind_of_field(tmp_path: Path) -> None:
    def change(sample: dict[str, Any], number: int) -> None:
        found = json.loads(sample["json"])
        sink, labels = io.BytesIO(), io.BytesIO()
        np.save(sink, np.array(found["boxes"], np.float32).reshape(-1, 4))
        np.save(labels, np.array(found["labels"], np.int32))
        coco = [{"bbox": box, "id": at} for at, box in enumerate(found["boxes"])]
        columns = {"bbox": found["boxes"], "category": found["labels"]}
        sample |= {"boxes.npy": sink.getvalue(), "labels.npy": labels.getvalue()}
        sample |= {
            "coco.json": json.dumps({"objects": coco}).encode(),
            "hf.json": json.dumps({"objects": columns}).encode(),
        }
        sample["list.json"] = json.dumps(found["boxes"]).encode()

    prefix = write(tmp_path, change)
    options: dict[str, Any] = {"size": 40, "crop": "random", "flip": True}
    data = shardkit.dataset(prefix)
    right = [sample["json"]["boxes"].tolist() for sample in data.decode(boxes="json/boxes", **options)]
    numbers = [sample["json"]["labels"].tolist() for sample in data.decode(boxes="json/boxes", **options)]
    assert sum(map(len, right)) not in (0, 36)  # some are left out
    npy = list(data.decode(boxes=Boxes("boxes.npy", labels="labels.npy"), **options))
    assert [sample["boxes.npy"].tolist() for sample in npy] == right
    assert [sample["labels.npy"].tolist() for sample in npy] == numbers
    coco = [sample["coco.json"]["objects"] for sample in data.decode(boxes="coco.json/objects/bbox", **options)]
    assert [[item["bbox"] for item in items] for items in coco] == right
    assert [[item["id"] for item in items] for items in coco] == numbers
    hf = [
        s["hf.json"]["objects"] for s in data.decode(boxes=Boxes("hf.json/objects/bbox", labels="category"), **options)
    ]
    assert [columns["bbox"].tolist() for columns in hf] == right and [c["category"].tolist() for c in hf] == numbers
    alone = [batch["list.json"] for batch in data.decode(boxes="list.json", **options).batch(4)]
    assert [boxes.tolist() for batch in alone for boxes in batch] == right and all(
        isinstance(one, list) for one in alone
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b'{"boxes": [[1, 2, 3]], "labels": [1]}', r"shape of boxes \(n, 4\)"),
        (b'{"boxes": [[1, 2, 3, NaN]], "labels": [1]}', "not finite"),
        (b'{"boxes": [[1, 2, 3, 4]], "labels": [1, 2]}', "'labels' has 2 entries for 1 boxes"),
        (b'{"boxes": "none"}', "not a list of boxes"), (b'{"box": []}', "there is no 'boxes'"),
        (b"[3]", "there is no 'boxes'"),
        (b'{"boxes": [[1, 2, 3, "4x"]]}', "no boxes at"), (b"{", "can't be decoded"), (None, "no field 'json'"),
    ],
)  # fmt: skip
def test_fields_without_boxes_are_told_by_sample_or_skipped(tmp_path: Path, value: bytes | None, words: str) -> None:
    def change(sample: dict[str, Any], number: int) -> None:
        if number == 3:
            sample.pop("json") if value is None else sample.update(json=value)

    prefix = write(tmp_path, change)
    with pytest.raises(DecodeError, match=words) as caught:
        list(shardkit.dataset(prefix).decode(boxes="json/boxes").batch(4, collate="list"))
    assert caught.value.key == "003"
    data = shardkit.dataset(prefix).decode(boxes="json/boxes", on_error="skip").batch(4, collate="list")
    assert sum(len(batch.keys) for batch in data) == COUNT - 1


def test_a_mask_that_does_not_fit_its_image_is_told(tmp_path: Path) -> None:
    def change(sample: dict[str, Any], number: int) -> None:
        if number == 2:
            sink = io.BytesIO()
            Image.new("L", (3, 4)).save(sink, "PNG")
            sample["mask.png"] = sink.getvalue()
        if number == 5:
            sample["mask.png"] = b"no image"

    data = shardkit.dataset(write(tmp_path, change))
    for view, words in ((data[2:3], r"of shape \(4, 3\) does not fit"), (data[5:6], "can't be decoded")):
        with pytest.raises(DecodeError, match=words):
            list(view.decode(masks="mask.png"))
    with pytest.raises(DecodeError, match="no field 'seg' for its masks"):
        list(data.decode(masks="seg"))


def test_masks_of_palettes_and_of_many_instances_keep_their_numbers(tmp_path: Path) -> None:
    def change(sample: dict[str, Any], number: int) -> None:
        mask = np.asarray(Image.open(io.BytesIO(sample["mask.png"])))
        palette, wide, array = (
            Image.fromarray(mask).convert("P"),
            Image.fromarray(mask.astype(np.uint16) * 300),
            io.BytesIO(),
        )
        palette.putdata(mask.ravel().tolist())
        np.save(array, mask.astype(np.int64) * 100_000)
        for name, image in (("p.png", palette), ("w.png", wide), ("b.png", Image.fromarray(mask > 0))):
            sink = io.BytesIO()
            image.save(sink, "PNG")
            sample[name] = sink.getvalue()
        sample["a.npy"] = array.getvalue()

    data = shardkit.dataset(write(tmp_path, change))
    names = ["mask.png", "p.png", "w.png", "b.png", "a.npy"]
    for sample in data.decode(size=30, crop="random", flip=True, masks=names):
        mask = sample["mask.png"]
        np.testing.assert_array_equal(sample["p.png"], mask)
        np.testing.assert_array_equal(sample["w.png"], mask.astype(np.int32) * 300)
        np.testing.assert_array_equal(sample["b.png"], mask > 0)
        np.testing.assert_array_equal(sample["a.npy"], mask.astype(np.int64) * 100_000)
        assert [sample[name].dtype for name in names] == [np.uint8, np.uint8, np.int32, np.uint8, np.int64]


def test_buckets_move_boxes_and_masks_into_their_shapes(objects: str) -> None:
    chain = (
        shardkit.dataset(objects)
        .buckets(3, size=48)
        .decode(boxes="json/boxes", masks="mask.png", interpolation="nearest", exact=True)
    )
    for batch in chain.batch(4):
        np.testing.assert_array_equal(batch.images[..., 0], batch["mask.png"])


def test_lists_become_lists_of_tensors(objects: str) -> None:
    torch = pytest.importorskip("torch")
    for loader in (detection(objects).to_torch(), detection(objects).to_torch().loader(num_workers=2)):
        images, labels = batch = next(iter(loader))
        assert all(torch.is_tensor(image) and image.ndim == 3 for image in images) and torch.is_tensor(labels)
        assert all(torch.is_tensor(target["boxes"]) and torch.is_tensor(target["labels"]) for target in batch.json)
        assert [mask.shape for mask in batch["mask.png"]] == [image.shape[:2] for image in images]
    moved = batch.to(torch.float32)
    assert {image.dtype for image in moved.images} == {torch.float32} and batch.json[0]["boxes"].dtype == torch.float32
    assert [len(one) for one in pickle.loads(pickle.dumps(batch)).images] == [len(one) for one in images]


def test_what_does_not_fit_is_refused(objects: str) -> None:
    data = shardkit.dataset(objects)
    for wrong, words in [
        (lambda: data.decode(boxes="json/boxes", views={"a": (2, 8)}), "a crop of its own"),
        (lambda: data.decode(masks="mask.png", augment=shardkit.Augment(rotation_range=9)), "rotates, shifts"),
        (lambda: data.decode(boxes=3), "neither a path nor"),
        (lambda: data.decode().batch(2, collate="lists"), "not 'stack' or 'list'"),
        (lambda: data.batch(2, encoded=True, collate="list"), "one buffer already"),
    ]:
        with pytest.raises(UsageError, match=words):
            wrong()
    data.decode(masks="mask.png", augment=shardkit.Augment(brightness_range=(0.9, 1.1)))
    with pytest.raises(shardkit.DatasetError, match='collate="list"'):
        list(data.decode().batch(4))
