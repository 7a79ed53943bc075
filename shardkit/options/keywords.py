"""Names that a function or object does not have: errors that give the right one.

People type the names of the library that they come from. `ELSEWHERE` has those of keyword arguments, `VALUES` those of
values; a name in neither is compared with the existing ones for a typing error.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar

from shardkit.errors import UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

_BATCH = "call `.batch(64, drop_last=True)` on the dataset"
_DECODE = "call `.decode(size=224)` on the dataset"
_SPLIT = 'call `.split({"train": 0.8, "validation": 0.2})` on the dataset'
_MAP = "call `.map(fn)` on the dataset, after `decode()`"
_SHUFFLE = "give the size of the buffer as `dataset(…, shuffle=10_000)`"
_THREADS = "threads decode the images: `dataset(…, threads=8)`"
_AHEAD = "batches are always decoded ahead: `dataset(…, ahead=8)` sets how many"
_REPEAT = "call `.repeat(n)` or `.epoch_size(n)` on the dataset"
_CACHE = '`dataset(…, cache="folder")` keeps copies of a store\'s shards'
_NORMALIZE = 'call `.decode(mean="imagenet", std="imagenet")` on the dataset'
_AUGMENT = "call `.decode(augment=shardkit.Augment(rotation_range=10))` on the dataset; `Augment` has all of these"

ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "batch_size": ("batch.size", "call `.batch(64)` on the dataset"),
    "batchsize": ("batch.size batch_size", "call `.batch(64)` on the dataset"),
    "block_length": ("lanes", ""),
    "brightness": ("brightness_range", _AUGMENT),
    "buffer": ("shuffle shuffle.size", _SHUFFLE),
    "buffer_size": ("shuffle shuffle.size", _SHUFFLE),
    "cache_dir": ("cache", _CACHE),
    "cache_limit": ("cache_bytes", ""),
    "cache_size": ("cache_bytes", ""),
    "channels": ("color color_mode", 'call `.decode(color="gray")` on the dataset'),
    "chunk_bytes": ("max_bytes", ""),
    "class_mode": ("label label_mode", 'call `.decode(label="onehot")` on the dataset'),
    "class_names": ("classes", "the dataset has its classes: `dataset(…).classes`"),
    "color_mode": ("color", 'call `.decode(color="gray")` on the dataset'),
    "crop_size": ("size target_size image_size", _DECODE),
    "cycle_length": ("lanes", ""),
    "data_dir": ("source folder", ""),
    "data_format": ("layout", 'call `.decode(layout="chw")` on the dataset'),
    "degrees": ("rotation_range", _AUGMENT),
    "deterministic": ("", "the order is always deterministic, given `seed` and the epoch"),
    "directory": ("source folder", ""),
    "drop_last": ("", _BATCH),
    "drop_remainder": ("drop_last", _BATCH),
    "epochs": ("repeat.count", _REPEAT),
    "extensions": ("ext", ""),
    "exts": ("ext", ""),
    "files": ("source", ""),
    "func": ("fn", _MAP),
    "function": ("fn", _MAP),
    "grayscale": ("color color_mode", 'call `.decode(color="gray")` on the dataset'),
    "handler": ("on_error", 'call `.decode(on_error="skip")` on the dataset'),
    "horizontal_flip": ("flip", "call `.decode(flip=True)` on the dataset"),
    "image_size": ("size target_size", _DECODE),
    "img_size": ("size target_size image_size", _DECODE),
    "input_dir": ("source folder", ""),
    "label_mode": ("label class_mode", 'call `.decode(label="onehot")` on the dataset'),
    "lengths": ("fractions", _SPLIT),
    "local": ("cache folder", _CACHE),
    "map_func": ("fn", _MAP),
    "max_samples": ("max_count", "call `.take(n)` on the dataset"),
    "max_size": ("max_bytes", ""),
    "max_workers": ("workers threads", _THREADS),
    "maxcount": ("max_count", ""),
    "maxsize": ("max_bytes", ""),
    "mode": ("color color_mode label_mode", ""),
    "n": ("count", ""),
    "n_jobs": ("workers threads", _THREADS),
    "normalize": ("", _NORMALIZE),
    "num_epochs": ("repeat.count", _REPEAT),
    "num_parallel_calls": ("threads workers", _THREADS),
    "num_parallel_reads": ("threads workers", _THREADS),
    "num_proc": ("workers threads", _THREADS),
    "num_replicas": ("world_size", ""),
    "num_shards": ("world_size", "shards have a size: `max_bytes` or `max_count`"),
    "num_threads": ("threads workers", _THREADS),
    "num_workers": ("threads workers", _THREADS),
    "on_bad_lines": ("on_error", ""),
    "out": ("dest", ""),
    "out_dir": ("dest folder", ""),
    "output": ("dest", ""),
    "output_dir": ("dest folder", ""),
    "path": ("source dest", ""),
    "paths": ("source", ""),
    "predicate": ("fn", "call `.filter(fn)` or `.where(…)` on the dataset"),
    "prefetch": ("ahead", _AHEAD),
    "prefetch_batches": ("ahead", _AHEAD),
    "prefetch_factor": ("ahead", _AHEAD),
    "probs": ("weights", "`shardkit.mix([a, b], weights=[3, 1])` mixes datasets"),
    "probabilities": ("weights", "`shardkit.mix([a, b], weights=[3, 1])` mixes datasets"),
    "proportions": ("weights fractions", ""),
    "ratio": ("fractions", _SPLIT),
    "remote": ("source dest", ""),
    "repeat": ("", _REPEAT),
    "resample": ("interpolation", _REPEAT),
    "resampled": ("", _REPEAT),
    "resize": ("size target_size image_size", _DECODE),
    "resolution": ("size target_size image_size", _DECODE),
    "root": ("source", ""),
    "rotation": ("rotation_range", _AUGMENT),
    "samples_per_shard": ("max_count", ""),
    "shard_size": ("max_bytes", ""),
    "shardshuffle": ("shuffle shuffle.size", _SHUFFLE),
    "shear": ("shear_range", _AUGMENT),
    "shuffle_buffer": ("shuffle", _SHUFFLE),
    "shuffle_buffer_size": ("shuffle", _SHUFFLE),
    "size": ("target_size image_size", _DECODE),
    "size_limit": ("max_bytes cache_bytes", ""),
    "target_size": ("size image_size", _DECODE),
    "test_size": ("fractions", _SPLIT),
    "transform": ("preprocessing_function", _MAP),
    "transforms": ("preprocessing_function", _MAP),
    "url": ("source dest", ""),
    "urls": ("source", ""),
    "validation_split": ("split", _SPLIT),
    "vertical_flip": ("flip", 'call `.decode(flip="vertical")` on the dataset'),
    "workers": ("threads", _THREADS),
    "zoom": ("zoom_range", _AUGMENT),
}
"""Names that other libraries give to options -> (the names here, what to do if the function has none of these).

The first of the names that the function has is meant; `batch.size` is the `size` of `batch` alone."""

METHODS: Mapping[str, str] = {
    "apply": "call the function with the dataset, or use map()",
    "as_numpy_iterator": "iterate over the dataset: it yields NumPy arrays",
    "batched": "it is batch() here",
    "cache": _CACHE,
    "cardinality": "it is len(dataset) here",
    "class_indices": "a class's number is its place in dataset.classes",
    "class_names": "it is dataset.classes here",
    "class_to_idx": "a class's number is its place in dataset.classes",
    "concatenate": "use shardkit.concat([a, b])",
    "dataloader": "use dataset.to_torch().loader()",
    "element_spec": "use shardkit.tensorflow.element_spec(dataset)",
    "enumerate": "use Python's enumerate(dataset)",
    "from_generator": "use shardkit.write(samples, dest), then shardkit.dataset(dest)",
    "head": "it is take() here",
    "imgs": "it is dataset.paths and dataset.labels here",
    "interleave": "shards are interleaved by `dataset(…, shuffle=10_000, lanes=16)`; datasets by shardkit.mix([a, b])",
    "loader": "use dataset.to_torch().loader()",
    "map_batches": "use dataset.batch(64).map(fn)",
    "map_tuple": "use map(), on batches of (images, labels) or on samples",
    "num_classes": "use len(dataset.classes)",
    "num_samples": "it is dataset.epoch_samples here",
    "options": "its options are arguments of dataset() and of its methods",
    "padded_batch": "use batch(), after a map() that makes the arrays equally large",
    "prefetch": _AHEAD,
    "random_split": "it is split() here",
    "rebatch": "call batch() once, with the size that is wanted",
    "sample": "use dataset.shuffle().take(n), or dataset[number]",
    "sample_from_datasets": "use shardkit.mix([a, b])",
    "samples": "it is dataset.paths and dataset.labels here; their number is dataset.epoch_samples",
    "shard": "ranks share a dataset by themselves, or by `dataset(…, rank=0, world_size=8)`",
    "targets": "it is dataset.labels here",
    "to_dataloader": "use dataset.to_torch().loader()",
    "to_jax": "iterate over the dataset: it yields NumPy arrays, which jax.device_put takes",
    "to_numpy": "iterate over the dataset: it yields NumPy arrays",
    "to_pytorch": "it is to_torch() here",
    "to_tensorflow": "it is to_tf() here",
    "to_tfdata": "it is to_tf() here",
    "to_tuple": 'batches are tuples already; of a decoded sample, use sample["image"], sample["label"]',
    "to_wds": "it is to_webdataset() here",
    "train_test_split": "it is split() here",
    "transform": "it is map() here",
    "unbatch": "omit batch(): without it, the dataset yields samples",
    "window": "it is batch() here",
    "with_epoch": "it is epoch_size(n) here",
    "with_length": "len(dataset) is known already; epoch_size(n) sets another length",
    "with_options": "its options are arguments of dataset() and of its methods",
    "with_transform": "it is map() here",
    "zip": "use Python's zip(a, b)",
}
"""Methods and attributes that other libraries' datasets have -> what to write for a Dataset."""

MODULE: Mapping[str, str] = {
    "DataLoader": "use shardkit.dataset(…).batch(64), or its to_torch()",
    "ImageFolder": 'it is shardkit.dataset("data/train") here',
    "ShardReader": "it is shardkit.dataset() here",
    "TarWriter": "it is shardkit.ShardWriter here",
    "WebDataset": "it is shardkit.dataset() here",
    "index": "it is shardkit.index_shards() here",
    "load": "it is shardkit.dataset() here",
    "load_dataset": "it is shardkit.dataset() here",
    "open": "it is shardkit.dataset() here",
    "read": "it is shardkit.dataset() here",
}
"""Names that people look for in the package -> what to write."""

VALUES: Mapping[str, str] = {
    "antialias": "area",
    "area": "box",
    "box": "area",
    "categorical": "onehot",
    "channels_first": "chw",
    "channels_last": "hwc",
    "cubic": "bicubic",
    "double": "float32",
    "float": "float32",
    "float64": "float32",
    "grayscale": "gray",
    "grey": "gray",
    "greyscale": "gray",
    "half": "float16",
    "ignore": "skip",
    "int": "sparse",
    "inter_area": "area",
    "inter_cubic": "bicubic",
    "inter_lanczos4": "lanczos",
    "inter_linear": "bilinear",
    "inter_nearest": "nearest",
    "l": "gray",
    "lanczos3": "lanczos",
    "linear": "bilinear",
    "multi_hot": "multihot",
    "multilabel": "multihot",
    "nchw": "chw",
    "nhwc": "hwc",
    "one_hot": "onehot",
    "onehot": "categorical",
    "sparse": "int",
    "strict": "raise",
    "warn": "skip",
    "webdataset": "tar",
}
"""Names that other libraries give to values -> those here."""


def named_options(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap a function so that a keyword argument that it does not have is a UsageError that gives the right name."""
    parameters = inspect.signature(function).parameters.values()
    known = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    known |= _unpacked(function)
    names = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    names = names or [each.name for each in parameters if each.name in known - {"self"}]
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    positional = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    most = sys.maxsize if any(each.kind is each.VAR_POSITIONAL for each in parameters) else len(positional)
    bound = len(positional) > 0 and positional[0] == "self"

    @functools.wraps(function)
    def checked(*args: _P.args, **options: _P.kwargs) -> _R:
        if len(args) > most:
            raise _too_many(called, args[most], most - bound, len(args) - bound, names)
        if not known.issuperset(options):
            raise unknown_option(called, next(name for name in options if name not in known), known, names)
        return function(*args, **options)

    return checked


def named_fields(kind: type[_T]) -> type[_T]:
    """Decorate a dataclass of options so that an argument that it does not have is an error, as for `named_options`."""
    kind.__init__ = named_options(kind.__init__)  # type: ignore[method-assign]
    return kind


def _too_many(called: str, value: object, most: int, given: int, names: Sequence[str]) -> UsageError:
    """The error for positional arguments where a function has only keywords. value: the first that is too many."""
    takes = f"takes {most} positional argument{'' if most == 1 else 's'}" if most else "takes no positional arguments"
    fact = f"{takes}, but {given} {'was' if given == 1 else 'were'} given"
    if called == "decode" and isinstance(value, (int, tuple)) and not isinstance(value, bool):
        return UsageError(f"{called}()", fact, f"name it: `.decode(size={value!r})`")
    if called == "decode":
        return UsageError(f"{called}()", fact, "images become arrays in any case: call `.decode(size=224)`")
    if called == "dataset":
        return UsageError(f"{called}()", fact, "give several sources as one list, and options by name: `shuffle=True`")
    return UsageError(f"{called}()", fact, f"give the others by name: {', '.join(names)}")


def _unpacked(function: Callable[..., Any]) -> set[str]:
    """The names of `**options: Unpack[…]`, if the function has such options."""
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_KEYWORD:
            options = function.__globals__[str(each.annotation).removeprefix("Unpack[").removesuffix("]")]
            return set(options.__annotations__)
    return set()


def options_from(settings: type[Any]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator for a function whose `**options` are the fields of a dataclass: `help()` shows them with defaults.

    A keyword argument that the function does not have is an error, as for `named_options`.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        options = [
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
            for each in fields(settings)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return named_options(function)

    return decorate


def unknown_option(called: str, given: str, known: Iterable[str], shown: Sequence[str] = ()) -> UsageError:
    """The error for a keyword argument that a function does not have.

    known: the names of its parameters; shown: those to list if none of them is meant.
    """
    fact = f"got an unexpected keyword argument {given!r}"
    known = {name for name in known if name != "self"}
    meant, advice = ELSEWHERE.get(given, ("", ""))
    for each in meant.split():
        function, _, name = each.rpartition(".")
        if name in known and function in ("", called):
            return UsageError(f"{called}()", fact, f"did you mean `{name}`?")
    close = None if advice else closest(given, known)
    if advice or close is not None:
        return UsageError(f"{called}()", fact, advice or f"did you mean `{close}`?")
    listed = ", ".join(shown or sorted(known))
    return UsageError(f"{called}()", fact, f"its options are {listed}" if listed else "it has no options")


def no_attribute(of: object, given: str, names: Iterable[str], moved: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that an object does not have: with what to write instead, if that is known."""
    return _no_name(f"{type(of).__name__!r} object", given, names, moved)


def no_name(module: str, given: str, names: Iterable[str]) -> AttributeError:
    """The error for a name that a module does not have."""
    return _no_name(f"module {module!r}", given, names, MODULE)


def _no_name(of: str, given: str, names: Iterable[str], moved: Mapping[str, str]) -> AttributeError:
    advice = ""
    if not given.startswith("_"):  # looked for by other programs, often
        close = None if given in moved else closest(given, [name for name in names if not name.startswith("_")])
        advice = moved.get(given) or ("" if close is None else f"did you mean {close!r}?")
    fact = f"{of} has no attribute {given!r}"
    return AttributeError(f"{fact}; {advice}" if advice else fact)


def cure_of_choice(name: str, value: object, allowed: Iterable[object]) -> str:
    """What to do about a value that is not among the allowed ones: the one that is meant, if that is known."""
    texts = [each for each in allowed if isinstance(each, str)]
    kind = getattr(value, "__name__", None) or getattr(value, "name", None)  # np.float32, np.dtype, members of an enum
    text = str(kind or value).rpartition(".")[2].lower()
    meant = next((each for each in (text, VALUES.get(text)) if each in texts), None) or closest(text, texts)
    return f'did you mean `{name}="{meant}"`?' if meant else "choose one of these"


def closest(given: str, names: Iterable[str]) -> str | None:
    """The name that is written almost like the given one; None if there is none. Case, - and _ do not count."""
    import difflib

    plain = {_letters(name): name for name in names}
    found = difflib.get_close_matches(_letters(given), plain, 1, cutoff=0.75)
    return plain[found[0]] if found else None


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
