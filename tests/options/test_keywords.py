"""What people who come from other libraries type, and the right name in the answer."""

from __future__ import annotations

import enum
import inspect
import pydoc
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import UsageError
from shardkit.options import keywords
from shardkit.options.keywords import (
    ELSEWHERE,
    METHODS,
    MODULE,
    VALUES,
    closest,
    cure_of_choice,
    named_options,
    unknown_option,
)

DATA = shardkit.dataset("nowhere")

CALLS: dict[str, Callable[..., Any]] = {
    "dataset": lambda **options: shardkit.dataset("nowhere", **options),
    "decode": DATA.decode,
    "batch": DATA.batch,
    "shuffle": DATA.shuffle,
    "map": DATA.map,
    "split": DATA.split,
    "take": DATA.take,
    "to_torch": DATA.to_torch,
    "pack": lambda **options: shardkit.pack("nowhere", "out", **options),
    "plan_pack": lambda **options: shardkit.plan_pack("nowhere", "out", **options),
    "write": lambda **options: shardkit.write([], "out", **options),
    "convert": lambda **options: shardkit.convert("nowhere", "out", **options),
    "verify": lambda **options: shardkit.verify("nowhere", **options),
    "mix": lambda **options: shardkit.mix([DATA], **options),
    "concat": lambda **options: shardkit.concat([DATA], **options),
    "Augment": shardkit.Augment,
    "Images": shardkit.Images,
    "LabelOptions": shardkit.LabelOptions,
    "TableColumns": shardkit.TableColumns,
    "Ray": shardkit.Ray,
}


@pytest.mark.parametrize(
    ("called", "given", "answer"),
    [
        ("dataset", "buffer_size", "did you mean `shuffle`?"),
        ("dataset", "drop_remainder", "call `.batch(64, drop_last=True)` on the dataset"),
        ("dataset", "num_workers", "did you mean `threads`?"),
        ("dataset", "num_parallel_calls", "did you mean `threads`?"),
        ("dataset", "class_names", "the dataset has its classes: `dataset(…).classes`"),
        ("dataset", "prefetch", "did you mean `ahead`?"),
        ("dataset", "image_size", "call `.decode(size=224)` on the dataset"),
        ("dataset", "batch_size", "call `.batch(64)` on the dataset"),
        ("dataset", "transform", "call `.map(fn)` on the dataset, after `decode()`"),
        ("dataset", "root", "did you mean `source`?"),
        ("dataset", "validation_split", 'call `.split({"train": 0.8, "validation": 0.2})` on the dataset'),
        ("dataset", "shuffel", "did you mean `shuffle`?"),
        ("dataset", "worldsize", "did you mean `world_size`?"),
        ("dataset", "zzz", "its options are index, pack_to, shuffle, seed, lanes, "),
        ("dataset", "workers", "did you mean `threads`?"),
        ("dataset", "shardshuffle", "did you mean `shuffle`?"),
        ("decode", "normalize", 'call `.decode(mean="imagenet", std="imagenet")` on the dataset'),
        ("decode", "rotation", "call `.decode(augment=shardkit.Augment(rotation_range=10))` on the dataset"),
        ("Augment", "rotation", "did you mean `rotation_range`?"),
        ("Augment", "zoom", "did you mean `zoom_range`?"),
        ("Images", "max_sides", "did you mean `max_side`?"),
        ("LabelOptions", "label_form", "did you mean `label_from`?"),
        ("TableColumns", "zzz", "its options are "),
        ("Ray", "ray_address", "did you mean `address`?"),
        ("decode", "image_size", "did you mean `size`?"),
        ("decode", "target_size", "did you mean `size`?"),
        ("decode", "horizontal_flip", "did you mean `flip`?"),
        ("decode", "vertical_flip", "did you mean `flip`?"),
        ("decode", "data_format", "did you mean `layout`?"),
        ("decode", "batch_size", "call `.batch(64)` on the dataset"),
        ("decode", "interpolaton", "did you mean `interpolation`?"),
        ("batch", "batch_size", "did you mean `size`?"),
        ("batch", "drop_remainder", "did you mean `drop_last`?"),
        ("batch", "num_parallel_calls", "threads decode the images: `dataset(…, threads=8)`"),
        ("shuffle", "buffer_size", "did you mean `size`?"),
        ("map", "num_parallel_calls", "threads decode the images: `dataset(…, threads=8)`"),
        ("map", "map_func", "did you mean `fn`?"),
        ("split", "lengths", "did you mean `fractions`?"),
        ("split", "test_size", "did you mean `fractions`?"),
        ("take", "n", "did you mean `count`?"),
        ("to_torch", "batch_size", "call `.batch(64)` on the dataset"),
        ("pack", "num_workers", "did you mean `workers`?"),
        ("pack", "class_names", "did you mean `classes`?"),
        ("pack", "samples_per_shard", "did you mean `max_count`?"),
        ("pack", "validation_split", "did you mean `split`?"),
        ("pack", "maxbytes", "did you mean `max_bytes`?"),
        ("plan_pack", "num_workers", "did you mean `workers`?"),
        ("write", "maxcount", "did you mean `max_count`?"),
        ("write", "output_dir", "did you mean `dest`?"),
        ("convert", "num_workers", "did you mean `workers`?"),
        ("verify", "n_jobs", "did you mean `workers`?"),
        ("mix", "probs", "did you mean `weights`?"),
        ("concat", "weights", "its options are datasets"),
    ],
)
def test_a_name_of_another_library_is_answered_with_the_right_one(called: str, given: str, answer: str) -> None:
    fact = f"{called}(): got an unexpected keyword argument {given!r}; {answer}"
    with pytest.raises(UsageError, match=re.escape(fact)):
        CALLS[called](**{given: 1})


def test_what_is_meant_exists_somewhere() -> None:
    """Each name in the table is a parameter of a public function or method."""
    functions = [shardkit.Augment, shardkit.ShardWriter, *vars(shardkit.Dataset).values()]
    functions += [getattr(shardkit, name) for name in shardkit.__all__]
    known = {name for each in functions if callable(each) for name in parameters_of(each)}
    keras = {"target_size", "image_size", "batch_size", "color_mode", "class_mode", "label_mode", "folder"}
    keras |= {"preprocessing_function"}
    meant = {name.rpartition(".")[2] for names, _ in ELSEWHERE.values() for name in names.split()}
    assert meant - known - keras == set()


def parameters_of(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("prefetch", "batches are always decoded ahead: `dataset(…, ahead=8)` sets how many"),
        ("cache", '`dataset(…, cache="folder")` keeps copies of a store\'s shards'),
        ("unbatch", "omit batch(): without it, the dataset yields samples"),
        ("to_pytorch", "it is to_torch() here"),
        ("class_names", "it is dataset.classes here"),
        ("with_epoch", "it is epoch_size(n) here"),
        ("with_length", "len(dataset) is known already; epoch_size(n) sets another length"),
        ("map_tuple", "use map(), on batches of (images, labels) or on samples"),
        ("samples", "it is dataset.paths and dataset.labels here; their number is dataset.epoch_samples"),
        ("class_indices", "a class's number is its place in dataset.classes"),
        ("to_tuple", 'batches are tuples already; of a decoded sample, use sample["image"], sample["label"]'),
        ("shuffel", "did you mean 'shuffle'?"),
        ("totorch", "did you mean 'to_torch'?"),
    ],
)
def test_a_method_of_another_library_is_answered_with_the_right_one(given: str, answer: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(f"'Dataset' object has no attribute {given!r}; {answer}")):
        getattr(DATA, given)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("index", "it is shardkit.index_shards() here"),
        ("load_dataset", "it is shardkit.dataset() here"),
        ("datasets", "did you mean 'dataset'?"),
    ],
)
def test_a_name_that_the_package_does_not_have_is_answered_with_the_right_one(given: str, answer: str) -> None:
    fact = f"module 'shardkit' has no attribute {given!r}; {answer}"
    with pytest.raises(AttributeError, match=re.escape(fact)):
        getattr(shardkit, given)


def test_what_the_package_has_is_not_answered_with_another_name() -> None:
    assert set(MODULE) & set(dir(shardkit)) == set()
    with pytest.raises(AttributeError, match=r"has no attribute '__path_hooks__'$"):
        shardkit.__path_hooks__  # noqa: B018


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (
            lambda: DATA.decode(64),
            "decode(): takes no positional arguments, but 1 was given; name it: `.decode(size=64)`",
        ),
        (lambda: DATA.decode("pil"), "images become arrays in any case: call `.decode(size=224)`"),
        (lambda: shardkit.dataset("a", "b"), "dataset(): takes 1 positional argument, but 2 were given; give several"),
        (
            lambda: DATA.batch(8, True),
            "batch(): takes 1 positional argument, but 2 were given; give the others by name",
        ),
        (lambda: shardkit.Augment(10), "Augment(): takes no positional arguments, but 1 was given; give the others by"),
    ],
)
def test_arguments_that_need_a_name_are_answered_with_it(call: Callable[[], Any], answer: str) -> None:
    with pytest.raises(UsageError, match=re.escape(answer)):
        call()


def test_a_function_given_to_select_is_answered_with_filter_and_where() -> None:
    with pytest.raises(UsageError, match=re.escape("call `.filter(fn)`, or `.where(expression)` for columns of the")):
        DATA.select(lambda sample: True)  # type: ignore[arg-type]


def test_no_method_of_a_dataset_is_called_missing() -> None:
    assert set(METHODS) & set(dir(shardkit.Dataset)) == set()


def test_what_programs_look_for_is_not_compared_with_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keywords, "closest", lambda *_: pytest.fail("compared"))
    assert not hasattr(DATA, "_ipython_display_")
    assert not hasattr(DATA, "__array__")


class Filter(enum.Enum):
    BICUBIC = 3


class Torchlike:
    def __str__(self) -> str:
        return "torch.float16"


@pytest.mark.parametrize(
    ("option", "value", "answer"),
    [
        ("interpolation", "cubic", 'did you mean `interpolation="bicubic"`?'),
        ("interpolation", "linear", 'did you mean `interpolation="bilinear"`?'),
        ("interpolation", "BILINEAR", 'did you mean `interpolation="bilinear"`?'),
        ("interpolation", "bilinaer", 'did you mean `interpolation="bilinear"`?'),
        ("interpolation", Filter.BICUBIC, 'did you mean `interpolation="bicubic"`?'),
        ("dtype", np.float32, 'did you mean `dtype="float32"`?'),
        ("dtype", float, 'did you mean `dtype="float32"`?'),
        ("dtype", Torchlike(), 'did you mean `dtype="float16"`?'),
        ("color", "grayscale", 'did you mean `color="gray"`?'),
        ("layout", "channels_first", 'did you mean `layout="chw"`?'),
        ("layout", "NHWC", 'did you mean `layout="hwc"`?'),
        ("label", "categorical", 'did you mean `label="onehot"`?'),
        ("on_error", "ignore", 'did you mean `on_error="skip"`?'),
        ("crop", "middle", "choose one of these"),
        ("crop", 3, "choose one of these"),
        ("flip", "Vertical", 'did you mean `flip="vertical"`?'),
        ("flip", 3, "choose one of these"),
        ("mean", "ImageNet", 'did you mean `mean="imagenet"`?'),
        ("std", "openai", "choose one of these"),
    ],
)
def test_a_value_of_another_library_is_answered_with_the_right_one(option: str, value: Any, answer: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"; {answer}")):
        DATA.decode(**{option: value})


def test_a_value_that_is_meant_is_one_of_the_allowed() -> None:
    assert cure_of_choice("check", "Full_", ("header", "full", None)) == 'did you mean `check="full"`?'
    assert cure_of_choice("format", "webdataset", ["tar", "tfrecord"]) == 'did you mean `format="tar"`?'
    assert cure_of_choice("to", "linear", ["jpeg", "png"]) == "choose one of these"
    class_modes = ("binary", "categorical", "sparse", "input", None)
    assert cure_of_choice("class_mode", "int", class_modes) == 'did you mean `class_mode="sparse"`?'
    assert cure_of_choice("class_mode", "onehot", class_modes) == 'did you mean `class_mode="categorical"`?'
    assert "" not in VALUES.values()


def test_a_function_without_options_says_so() -> None:
    @named_options
    def bare() -> None: ...

    with pytest.raises(UsageError, match=r"bare\(\): .* 'x'; it has no options"):
        bare(x=1)  # type: ignore[call-arg]


def test_only_names_that_are_nearly_the_same_are_meant() -> None:
    assert closest("Max_Count", ["max_count", "max_bytes"]) == "max_count"
    assert closest("height", ["size", "crop"]) is None
    assert closest("size", []) is None
    assert str(unknown_option("f", "x", ())) == "f(): got an unexpected keyword argument 'x'; it has no options"


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (shardkit.dataset, "shuffle: 'bool | int' = False"),
        (shardkit.Dataset.decode, "interpolation: 'Interpolation' = 'bilinear'"),
        (shardkit.Dataset.batch, "drop_last: 'bool' = False"),
        (shardkit.pack, "max_bytes: 'int | str' = '256MB'"),
        (shardkit.write, "max_bytes: 'int | str' = '256MB'"),
        (shardkit.ShardWriter, "max_bytes: 'int | str' = '256MB'"),
    ],
)
def test_help_shows_the_defaults(function: Any, shown: str) -> None:
    assert shown in pydoc.plain(pydoc.render_doc(function))
