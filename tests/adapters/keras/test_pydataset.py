"""Keras: passes and epochs, what is listed, fit, evaluate and predict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.errors import DatasetError, UsageError

keras: Any = None


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Not while tests are collected: some of them fork, and a process that has loaded TensorFlow should not."""
    global keras
    keras = pytest.importorskip("keras")


@pytest.fixture
def shards(tree: Path, tmp_path: Path) -> str:
    shardkit.pack(tree, tmp_path / "shards" / "all")
    return str(tmp_path / "shards" / "all")


def batches(shards: str, **options: Any) -> Any:
    return shardkit.dataset(shards, **options).decode(size=8).batch(5)


def tiny_model(outputs: int = 2) -> Any:
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(outputs),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def watched(inner: Any, seen: list[bytes]) -> Any:
    """A PyDataset that notes the images of each batch that Keras asks the inner one for."""

    class Watched(keras.utils.PyDataset):  # type: ignore[name-defined,misc]
        def __len__(self) -> int:
            return len(inner)

        def __getitem__(self, number: int) -> Any:
            item = inner[number]
            seen.append(item[0].tobytes())
            return item

        def on_epoch_begin(self) -> None:
            inner.on_epoch_begin()

        def on_epoch_end(self) -> None:
            inner.on_epoch_end()

    return Watched()


def test_batches_are_plain_tuples_in_the_order_of_the_dataset(shards: str) -> None:
    made, plain = batches(shards).to_keras(), batches(shards)
    assert len(made) == made.num_batches == 3
    for number, batch in enumerate(plain):
        images, labels = made[number]
        assert type(made[number]) is tuple
        np.testing.assert_array_equal(images, batch.images)
        np.testing.assert_array_equal(labels, batch.labels)


def test_a_batch_out_of_turn_is_the_same_as_in_turn(shards: str) -> None:
    in_turn = [made[0] for made in batches(shards, shuffle=6, lanes=1, seed=3)]
    made = batches(shards, shuffle=6, lanes=1, seed=3).to_keras()
    for number in (2, 0, 0, 1, 2, 1):
        np.testing.assert_array_equal(made[number][0], in_turn[number])


@pytest.mark.parametrize("number", [3, -1])
def test_a_batch_that_is_not_there_is_an_index_error(number: int, shards: str) -> None:
    with pytest.raises(IndexError, match=f"no batch {number} among 3"):
        batches(shards).to_keras()[number]


def test_what_is_listed_is_in_the_order_of_the_batches_in_every_epoch(shards: str) -> None:
    made = batches(shards, shuffle=6, lanes=1, seed=1).to_keras()
    orders = []
    expected = list(batches(shards, shuffle=6, lanes=1, seed=1).repeat(2))
    for epoch, batch in enumerate((expected[:3], expected[3:])):
        given = list(made)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in given]), made.labels)
        assert made.keys == [key for part in batch for key in part.keys], epoch
        assert [name.rpartition(".")[0] for name in made.filenames] == made.keys
        assert [name.partition("/")[0] for name in made.filenames] == [
            made.class_names[label] for label in made.classes
        ]
        orders.append(made.keys)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert (made.samples, made.num_classes, made.class_indices) == (12, 2, {"blue": 0, "red": 1})


def test_take_and_drop_last_count_in_what_is_listed(shards: str) -> None:
    taken = shardkit.dataset(shards).take(7).decode(size=8).batch(5, drop_last=True).to_keras()
    assert (len(taken), taken.samples, len(taken.keys)) == (1, 5, 5)
    skipped = batches(shards).skip(1).to_keras()
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in skipped]), skipped.labels)
    assert len(skipped.labels) == 7


def test_labels_that_are_not_known_beforehand_are_an_error(shards: str) -> None:
    made = shardkit.dataset(shards).decode(size=8, on_error="skip").batch(5).to_keras()
    with pytest.raises(DatasetError, match="of each batch"):
        _ = made.labels


def test_each_epoch_of_fit_is_a_whole_epoch_of_the_dataset(shards: str) -> None:
    """Keras looks at some batches before it begins, and asks in a random order then."""
    made = batches(shards, shuffle=6, lanes=1, seed=2).to_keras()
    seen: list[bytes] = []
    tiny_model().fit(watched(made, seen), epochs=3, verbose=0)
    orders = [batch.images.tobytes() for batch in batches(shards, shuffle=6, lanes=1, seed=2).repeat(5)]
    trained = seen[-9:]
    assert trained in [orders[3 * first : 3 * first + 9] for first in range(3)]
    assert made.keys == [key for batch in list(batches(shards, shuffle=6, lanes=1, seed=2).repeat(5))[
        orders.index(trained[6]) :][:3] for key in batch.keys]  # fmt: skip


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("processes", [False, True])
def test_fit_begins_with_the_epoch_that_is_next(
    shards: str, first: int, processes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes beside each other would lose batches: Keras is told that there are none, and the log says so."""
    made = batches(shards, shuffle=6, lanes=1, seed=2).to_keras()
    if first:
        made.set_epoch(first)
    if processes:
        made.workers, made.use_multiprocessing = 2, True
        assert "use_multiprocessing=True has no effect" in caplog.text
    assert made.use_multiprocessing is False
    seen: list[bytes] = []

    class Noting(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            seen.append(np.asarray(data[0]).tobytes())
            return {"loss": 0.0}

    model = Noting()
    model.compile("sgd", run_eagerly=True)
    model.fit(made, epochs=3, verbose=0)
    orders = [batch.images.tobytes() for batch in batches(shards, shuffle=6, lanes=1, seed=2).repeat(first + 3)]
    for epoch in range(3):  # two threads may change places within an epoch
        found, right = seen[3 * epoch :][:3], orders[3 * (first + epoch) :][:3]
        assert (sorted(found) == sorted(right)) if processes else (found == right)


def test_a_batch_that_was_changed_in_place_is_not_trained_on(shards: str) -> None:
    made = batches(shards).to_keras()
    expected = made[0][0].copy()
    first = made.set_epoch(0) or made[0][0]
    first[:] = 0
    np.testing.assert_array_equal(made[0][0], expected)


def test_fit_evaluate_and_predict_with_all_their_options(shards: str) -> None:
    train, held = batches(shards, shuffle=6, lanes=1).to_keras(), batches(shards).to_keras()
    model = tiny_model()
    weights = shardkit.dataset(shards).class_weight()
    history = model.fit(train, epochs=2, validation_data=held, class_weight=weights, verbose=0)
    assert len(history.history["val_loss"]) == 2
    model.fit(
        batches(shards, shuffle=6, lanes=1).repeat().to_keras(), epochs=2, steps_per_epoch=4, shuffle=False, verbose=0
    )
    model.fit(train, steps_per_epoch=1, epochs=2, verbose=0)
    predicted = model.predict(held, verbose=0).argmax(1)
    assert predicted.shape == held.labels.shape
    _, accuracy = model.evaluate(held, verbose=0)
    assert accuracy == pytest.approx(np.mean(predicted == held.labels))


def test_predictions_of_a_shuffled_dataset_fit_its_file_names(shards: str) -> None:
    made = batches(shards, shuffle=6, lanes=1, seed=5).to_keras()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Lambda(lambda x: x)])
    for _ in range(2):
        predicted = model.predict(made, verbose=0)
        by_name = dict(zip(made.filenames, predicted, strict=True))
        assert len(by_name) == 12
        for key, name in zip(made.keys, made.filenames, strict=True):
            image = shardkit.dataset(shards).decode(size=8)[key]["jpg"]
            np.testing.assert_array_equal(by_name[name], image.ravel())


def test_samples_without_batches_are_refused(shards: str) -> None:
    with pytest.raises(UsageError, match=r"add \.batch\(32\)"):
        shardkit.dataset(shards).decode(size=8).to_keras()


def test_a_strategy_of_several_workers_refuses_ranks_and_nothing_else(
    shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the backend is another")
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert len(batches(shards, rank=0, world_size=1).to_keras()) == 3
    with pytest.raises(UsageError, match="this is rank 0 of 2, and a strategy from"):
        batches(shards, rank=0, world_size=2).to_keras()


def test_an_error_of_the_data_reaches_the_caller_of_next(shards: str) -> None:
    made = batches(shards).map(lambda batch: 1 / 0).to_keras()
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_the_example_of_the_tutorials(draw_tree: Any, tmp_path: Path, capsys: Any) -> None:
    counts = {"train": 2, "test": 2, "validation": 2}
    draw_tree(tmp_path / "data", {f"{split}/{color}": 1 for split in counts for color in ("blue", "red")})
    from PIL import Image

    for split in counts:  # a car in each colour, from black to white
        for color, pixel in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            Image.new("RGB", (300, 200), pixel).save(tmp_path / "data" / split / color / "0000.jpg")
            picture = np.full((200, 300, 3), pixel, np.uint8)
            picture[:60], picture[140:] = 0, 255
            Image.fromarray(picture).save(tmp_path / "data" / split / color / "0000.jpg", quality=100)
    shardkit.pack(tmp_path / "data", tmp_path / "shards")
    capsys.readouterr()

    def load(split: str) -> Any:
        return shardkit.keras.flow_from_shards(tmp_path / "shards" / split, class_mode="binary", batch_size=64)

    train_it, val_it, test_it = load("train"), load("validation"), load("test")
    batch_x, batch_y = train_it.next()
    print(f"Batch shape={batch_x.shape}, min={batch_x.min():.3f}, max={batch_x.max():.3f}")
    said = capsys.readouterr().out.splitlines()
    assert said == ["Found 2 images belonging to 2 classes."] * 3 + [
        "Batch shape=(2, 256, 256, 3), min=0.000, max=255.000"
    ]
    assert sorted(batch_y.tolist()) == [0.0, 1.0] and batch_y.dtype == np.float32

    layers = [keras.Input((256, 256, 3)), keras.layers.AveragePooling2D(32), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(train_it, steps_per_epoch=1, validation_data=val_it, validation_steps=1, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    loss, _ = model.evaluate(test_it, verbose=0)
    assert np.isfinite(loss)
    assert model.predict(test_it, verbose=0).shape == (2, 1)


def test_batches_whose_number_is_not_known_are_found_by_number_too(shards: str) -> None:
    from shardkit.adapters.keras.pydataset import KerasDataset

    data = shardkit.dataset(shards).decode(size=8).filter(lambda sample: sample["cls"] == 1).batch(2)
    expected = [batch.keys for epoch in range(2) for _, batch in data.run(epoch)]
    assert len(expected) == 8
    for first in (0, 1, 3, 5):
        batches = KerasDataset(data, convert=lambda batch: batch.keys)
        assert [batches[number] for number in range(first, len(expected))] == expected[first:]


def test_a_dataset_that_fits_its_buffer_is_shuffled_in_one_lane(shards: str) -> None:
    from shardkit.adapters.keras.flow import shuffled

    data = shardkit.dataset(shards)
    assert shuffled(data, True, 0).reading.lanes == 1
    assert shuffled(shardkit.dataset(shards, lanes=3), True, 0).reading.lanes == 3
    assert shuffled(shardkit.dataset(shards, rank=0, world_size=2), True, 0).reading.lanes is None
    assert shuffled(data.shuffle(5), True, 0).reading.lanes is None
    assert shuffled(data, False, 0).reading.buffer == 0


def test_batches_that_are_not_decoded_are_refused(shards: str) -> None:
    with pytest.raises(UsageError, match=re.escape("the images are not decoded, and Keras needs arrays; add .decode(")):
        shardkit.dataset(shards).batch(5).to_keras()


@pytest.mark.parametrize("name", ["class_weight", "split"])
@pytest.mark.parametrize("function", ["flow_from_shards", "image_dataset_from_shards"])
def test_what_only_a_dataset_has_is_answered_with_the_line_to_write(shards: str, function: str, name: str) -> None:
    options = {"format": "keras"} if function == "image_dataset_from_shards" else {}
    made = getattr(shardkit.keras, function)(shards, verbose=False, **options)
    line = re.escape(f'shardkit.dataset("shards/train").{name}(')
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; .*{line}"):
        getattr(made, name)
