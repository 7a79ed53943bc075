"""The tables of docs/tutorials-questions.md, each run as a program, with what its lines should have made."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs/tutorials-questions.md"

START = """
import warnings; warnings.simplefilter("ignore")
import keras, numpy as np, shardkit
from shardkit.keras import ImageDataGenerator
layers = keras.layers
model = keras.Sequential([keras.Input((32, 32, 3)), layers.AveragePooling2D(8), layers.Flatten()])
model.add(layers.Dense(1, "sigmoid"))
model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
"""

START_TORCH = """
import numpy as np, shardkit, torch
model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, 2))
"""

CHECKS: dict[str, dict[str, str]] = {
    "Building": {
        "How are training images augmented?": "train_datagen.rescale == 1 / 255",
        "What do the augmented images look like?": "len({picture.tobytes() for picture in pictures}) == 20",
        "How are the training images loaded?": "next(train)[0].shape == (8, 32, 32, 3) and train.samples == 14",
        "And those for": "next(validation)[0].max() <= 1 and validation.samples == 6",
        "How is the model trained?": "len(history.history['val_loss']) == 2",
        "How are bottleneck": "np.load('features.npz')['x'].shape == (14, 48) and ordered.labels.sum() == 8",
        "What are `steps_per_epoch`": "set(history.history) >= {'loss', 'val_loss'}",
        "Must the images": "unpacked.samples == 14",
        "How is one image": "name in ('cats', 'dogs')",
    },
    "`flow_from_directory`": {
        "How do I load train": "(train.samples, validation.samples, test.samples) == (14, 6, 4)",
        "How do I look": "images.shape == (8, 32, 32, 3) and labels.shape == (8,)",
        "Which class has": "numbers == {'cats': 0, 'dogs': 1} and names == ['cats', 'dogs']",
        "How do I train?": "'val_loss' in history.history",
        "How do I evaluate": "0 <= accuracy <= 1",
        "Which prediction": "len(by_file) == 4 and 'cats/0000.jpg' in by_file",
        "Does that need": "all(abs(by_file[name] - by_file_again[name]) < 1e-5 for name in by_file)",
        "How do I make a confusion": "confusion.sum() == 4 and confusion.sum(1).tolist() == [2, 2]",
        "My test images": "sorted(found) == ['0.jpg', '1.jpg', '2.jpg']",
        "How do I take the validation": "(train_part.samples, held_part.samples) == (11, 3)",
        "How do I weight": "weights[0] > weights[1]",
        "How do I draw": "len(even) == 2 and next(even)[0].shape == (8, 32, 32, 3)",
        "Can I use only": "chosen.class_indices == {'dogs': 0, 'cats': 1}",
        "Can images be gray?": "gray.image_shape == (32, 32, 1)",
        "Can they be wider": "next(wide)[0].shape[1:] == (32, 64, 3)",
        "How do I get labels": "next(onehot)[1].shape == (14, 2)",
        "How do I get images": "(lambda x, y: np.array_equal(x, y))(*next(same))",
        "My labels are": "rows.class_indices == {'cat': 0, 'dog': 1} and next(rows)[0].shape == (4, 32, 32, 3)",
        "An image has several": "sorted(several[0][1].sum(1)) == [1, 1, 2, 2]",
        "I predict numbers": "sorted(numbers_too[0][1]) == sorted(table['age'])",
        "The samples have weights": "sorted(next(weighted)[2]) == sorted(table['age'].astype('float32'))",
        "How do I use a pretrained": "next(ready)[0].min() >= -1 and next(ready)[0].max() <= 1",
        "How do I get a `tf": "tensors.class_names == ['cats', 'dogs']",
    },
    "A detailed": {
        "I have lists": "shardkit.dataset('shards/ids-train').class_counts == {'0': 6, '1': 8}",
        "What replaces": "next(training)[0].shape == (4, 32, 32, 3) and validation.samples == 6",
        "And `to_categorical`": "next(onehot)[1].shape == (4, 2)",
        "What is `__len__`": "(steps, full) == (4, 2)",
        "What is `on_epoch_end`": "first != second and sum(map(len, first)) == 14",
        "How do I train": "'val_loss' in history.history",
        "My `__getitem__`": "np.array_equal(next(changed)[0], 255 - onehot[0][0])",
        "It changes": "next(noisy)[0].dtype == 'float32'",
        "My files are": "sorted(array[0, 0] for array in arrays) == [0, 1, 2, 3, 4, 5]",
        "The model has": "[part.shape for part in next(two)[0]] == [(4, 32, 32, 3), (4, 3)]",
        "It has two": "len(next(outputs)[1]) == 2",
        "Which IDs": "len(set(ids)) == 14",
    },
    "Transfer": {
        "What replaces `transforms`": "len(train_batches) == 4 and len(val_batches) == 2",
        "And the dict": "set(loaders) == {'train', 'val'}",
        "`dataset_sizes`": "sizes == {'train': 14, 'val': 6} and numbers == {'cats': 0, 'dogs': 1}",
        "How do I show": "picture.shape == (32, 32, 3) and labels.shape == (4,)",
        "What of": "ready.shape == (4, 32, 32, 3) and ready.dtype == torch.float32",
        "What does an epoch": "len(losses) == 4",
        "How do I use my": "next(iter(turned)).images.shape == (4, 3, 32, 32)",
        "What replaces `Weighted": "len(even) == 14",
        "And `random_split`": "sum(map(len, parts.values())) == 14 and len(parts['held']) in (3, 4)",
        "And `Subset`": "len(some) == 4",
        "How do I get file": "len(by_file) == 4 and set(by_file.values()) <= {0, 1}",
        "How do I resume": "len(list(again)) == 3",
    },
}
"""The first words of a heading -> those of a question -> what holds after its lines."""


def sections() -> dict[str, list[tuple[str, list[str]]]]:
    """Heading -> (question, lines) of its table."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for part in PAGE.read_text("utf-8").split("\n## ")[1:]:
        heading = part.partition("\n")[0]
        rows = re.findall(r"^\| (.*?) \| (`.*`) \|$", part, re.MULTILINE)
        found[heading] = [(question, re.findall(r"`(.*?)`(?:<br>|$)", lines)) for question, lines in rows]
    return found


def check_of(checks: dict[str, str], question: str) -> str:
    """What holds after the lines of a question."""
    [check] = [text for words, text in checks.items() if question.startswith(words)]
    return check


@pytest.fixture
def folder(tmp_path: Path, draw_tree: Any, draw_image: Any) -> Path:
    """`data/` with cats and dogs of each split, its shards, and `mine/` with images that have no class."""
    import shardkit

    counts = {"train/cats": 6, "train/dogs": 8, **{f"validation/{name}": 3 for name in ("cats", "dogs")}}
    draw_tree(tmp_path / "data", counts | {"test/cats": 2, "test/dogs": 2})
    shardkit.pack(tmp_path / "data", tmp_path / "shards")
    for name in ("mine", "preview"):
        (tmp_path / name).mkdir()
    for number in range(3):
        (tmp_path / "mine" / f"{number}.jpg").write_bytes(draw_image(number))
    return tmp_path


@pytest.mark.parametrize("heading", sections())
def test_the_lines_of_each_table_run_and_make_what_is_asked_for(heading: str, folder: Path, run_python: Any) -> None:
    [checks] = [each for words, each in CHECKS.items() if heading.startswith(words)]
    needed = ("torch", "torchvision") if heading.startswith("Transfer") else ("keras", "tensorflow", "pandas")
    for name in needed:
        if not importlib.util.find_spec(name):
            pytest.skip(f"{name} is not installed")
    program = [START_TORCH if heading.startswith("Transfer") else START]
    for question, lines in sections()[heading]:
        program += [*lines, f"assert {check_of(checks, question)}, {question!r}"]
    settings = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = run_python("-c", "\n".join(program), cwd=folder, check=False, **settings)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_question_has_lines_and_a_check_and_each_tutorial_six_or_more() -> None:
    found = sections()
    assert len(found) == len(CHECKS)
    for (heading, rows), checks in zip(found.items(), CHECKS.values(), strict=True):
        assert len(rows) == len(checks) >= 6, heading
        assert all(lines and check_of(checks, question) for question, lines in rows)
