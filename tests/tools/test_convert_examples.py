"""`convert` of TFRecord shards: what an Example holds beside bytes stays, as TensorFlow's own parser sees it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit import DamagedError, DatasetError, convert, index_shards, verify
from shardkit.formats.tfrecord.samples import framed_record
from shardkit.reading.blocks.block import index_table

Draw = Callable[..., bytes]
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zlib": zlib.compress}


@pytest.fixture
def tf() -> Any:
    return pytest.importorskip("tensorflow")


def example(tf: Any, **features: Any) -> bytes:
    """A serialized Example; a name's `_` is `/`. Values: lists of bytes, of int and of float."""
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name if name.startswith("__") else name.replace("_", "/")]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return bytes(made.SerializeToString())


def of_others(tf: Any, draw: Draw, number: int, **more: Any) -> bytes:
    """A record as the scripts for ImageNet and COCO make it, with boxes and a caption or two."""
    return example(
        tf, image_encoded=[draw(number)], image_format=[b"jpeg"], image_filename=[b"%d.jpg" % number],
        image_class_label=[number % 2], image_class_text=[(b"cat", b"dog")[number % 2]], image_height=[24],
        image_object_bbox_xmin=[0.25, 0.1, -1e-30], image_object_class=[-1, 5, 1 << 62], score=[0.1],
        captions=[b"one", b"", b"\xff\x00"], **more,
    )  # fmt: skip


def records(tf: Any, paths: list[Path]) -> list[dict[str, Any]]:
    """The features of each record by name, as TensorFlow's parser has them."""
    found = []
    for data in tf.data.TFRecordDataset([str(path) for path in sorted(paths)]).as_numpy_iterator():
        features = tf.train.Example.FromString(data).features.feature
        found.append({name: (f.WhichOneof("kind"), list(getattr(f, f.WhichOneof("kind")).value))
                      for name, f in sorted(features.items())})  # fmt: skip
    return found


def write(path: Path, examples: list[bytes], packing: str = "") -> Path:
    path = path.with_name(path.name + packing)
    path.write_bytes(PACKINGS[packing](b"".join(map(framed_record, examples))))
    return path


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("own_key", ["", "image/key", "__key__"])
def test_an_example_goes_to_another_shard_with_all_that_it_holds(
    tf: Any, tmp_path: Path, draw_image: Draw, own_key: str, indexed: bool, packing: str
) -> None:
    keys = {own_key.replace("/", "_"): [b"k%d"]} if own_key else {}
    made = [
        of_others(tf, draw_image, n, **{name: [value[0] % n] for name, value in keys.items()}) for n in range(4)
    ]  # fmt: skip
    source = write(tmp_path / "x-0.tfrecord", made, packing)
    if indexed:
        index_shards(source)
    before = records(tf, [write(tmp_path / "plain", made)])
    manifest = convert(source, tmp_path / "out" / "y", workers=1)
    after = records(tf, list((tmp_path / "out").glob("y-*.tfrecord")))
    if not own_key:
        assert [found.pop("__key__")[0] for found in after] == ["bytes_list"] * 4
    assert after == before
    assert [(entry.name, entry.count) for entry in manifest.classes] == [("cat", 2), ("dog", 2)]
    assert verify(tmp_path / "out" / "y", decode=True).sound
    old, new = list(shardkit.dataset(source)), list(shardkit.dataset(tmp_path / "out" / "y"))
    for first, second in zip(old, new, strict=True):
        first.pop("__url__"), second.pop("__url__")
        np.testing.assert_equal(second, first)
    paths = index_table(shardkit.dataset(tmp_path / "out" / "y").content.catalog)["path"].to_pylist()
    assert paths == [f"{n}.jpg" for n in range(4)]


def test_examples_are_shuffled_and_cut_anew_with_all_that_they_hold(tf: Any, tmp_path: Path, draw_image: Draw) -> None:
    made = [of_others(tf, draw_image, n) for n in range(6)]
    source = write(tmp_path / "x-0.tfrecord", made)
    limit = 3 * max(map(len, made))
    manifest = convert(source, tmp_path / "out" / "y", shuffle=True, seed=1, max_bytes=limit, workers=1)
    assert len(manifest.shards) > 1
    assert max(entry.bytes for entry in manifest.shards) <= limit
    after = records(tf, list((tmp_path / "out").glob("y-*.tfrecord")))
    for found in after:
        del found["__key__"]
    assert sorted(map(str, after)) == sorted(map(str, records(tf, [source])))
    again = convert(tmp_path / "out" / "y", tmp_path / "two" / "y", max_bytes=limit, workers=1)
    assert again.samples == 6


@pytest.mark.parametrize("packing", PACKINGS)
def test_other_fields_stay_lists_where_one_is_renamed_and_one_dropped(
    tf: Any, tmp_path: Path, draw_image: Draw, packing: str
) -> None:
    source = write(tmp_path / "x-0.tfrecord", [of_others(tf, draw_image, n) for n in range(2)], packing)
    before = records(tf, [write(tmp_path / "plain", [of_others(tf, draw_image, n) for n in range(2)])])
    convert(source, tmp_path / "out" / "y", rename={"image/object/class": "kinds"}, drop=["score"], workers=1)
    after = records(tf, list((tmp_path / "out").glob("y-*.tfrecord")))
    for old, new in zip(before, after, strict=True):
        assert new["field/kinds"] == old["image/object/class"] == ("int64_list", [-1, 5, 1 << 62])
        assert new["field/image/object/bbox/xmin"] == old["image/object/bbox/xmin"]
        assert new["field/captions"] == ("bytes_list", [b"one", b"", b"\xff\x00"])
        assert new["field/image/height"] == ("int64_list", [24])
        for name in ("image/encoded", "image/class/label", "image/class/text", "image/format", "image/filename"):
            assert new[name] == old[name]
        assert "field/score" not in new


def test_a_single_float_and_empty_lists_stay_what_they_are(tf: Any, tmp_path: Path, draw_image: Draw) -> None:
    made = tf.train.Example.FromString(of_others(tf, draw_image, 0))
    made.features.feature["none"].float_list.SetInParent()
    made.features.feature["nothing"].bytes_list.SetInParent()
    made.features.feature["no"].int64_list.SetInParent()
    source = write(tmp_path / "x-0.tfrecord", [made.SerializeToString()])
    convert(source, tmp_path / "out" / "y", drop=["captions"], workers=1)
    (after,) = records(tf, list((tmp_path / "out").glob("y-*.tfrecord")))
    assert after["field/score"] == ("float_list", [float(np.float32(0.1))])
    assert [after[f"field/{name}"] for name in ("none", "nothing", "no")] == [
        ("float_list", []), ("bytes_list", []), ("int64_list", []),
    ]  # fmt: skip


def test_a_list_can_not_go_to_tar_and_the_cure_that_the_error_names_works(
    tf: Any, tmp_path: Path, draw_image: Draw
) -> None:
    lists: dict[str, Any] = {"captions": [b"one", b"two"], "boxes": [0.25, 0.1], "kinds": [-1, 5], "score": [0.1]}
    made = example(tf, image_key=[b"k"], image_encoded=[draw_image(0)], image_format=[b"jpeg"], height=[24], **lists)
    source = write(tmp_path / "x-0.tfrecord", [made])
    dropped: list[str] = []
    for _ in lists:
        with pytest.raises(
            DatasetError, match=r"x-0.tfrecord: .* is a list or a fractional number, not bytes"
        ) as found:
            convert(source, tmp_path / "out" / "y", format="tar", drop=dropped, workers=1)
        dropped.append(found.value.cure.removeprefix("omit it with `drop=['").removesuffix("']`"))
    assert sorted(dropped) == sorted(lists)
    convert(source, tmp_path / "out" / "y", format="tar", drop=dropped, workers=1)
    (sample,) = shardkit.dataset(tmp_path / "out" / "y")
    assert sample["height"] == b"24"


@pytest.mark.parametrize("change", ["more", "fewer", "other"])
def test_packed_shards_that_their_index_does_not_fit_are_not_converted(
    tf: Any, tmp_path: Path, draw_image: Draw, change: str
) -> None:
    made = [
        example(tf, image_key=[b"k%d" % n], image_encoded=[draw_image(n)], image_format=[b"jpeg"]) for n in range(5)
    ]
    write(tmp_path / "x-0.tfrecord", made[:3], ".gz")
    index_shards(tmp_path / "x-0.tfrecord.gz")
    write(
        tmp_path / "x-0.tfrecord", {"more": made[:4], "fewer": made[:2], "other": [*made[:2], made[4]]}[change], ".gz"
    )
    facts = {"more": "says no more samples", "fewer": "ends before the sample 'k2'", "other": "the shard holds 'k4'"}
    with pytest.raises(DamagedError, match=facts[change]):
        convert(tmp_path / "x", tmp_path / "out" / "y", workers=1)
