from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit import DatasetError, MissingExtraError, UsageError, dataset, pack
from shardkit.cli.main import main
from shardkit.events import Progress
from shardkit.tools.report.report import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """A page's elements; an element that is not closed, or closed twice, is an assertion."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


def page_of(path: str | Path) -> Page:
    return Page(Path(path).read_text("utf-8"))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> Path:
    """shards/train (cat 30, dog 20) and shards/validation (cat 6, dog 4), with things to find in them."""
    root = tmp_path_factory.mktemp("report")
    tree = draw_tree(root / "data", {"train/cat": 26, "train/dog": 19}, seed=10)
    draw_tree(root / "data", {"validation/cat": 4, "validation/dog": 4}, size=(64, 48), seed=200)
    train, validation = tree / "train", tree / "validation"
    shutil.copy(train / "cat" / "0003.jpg", train / "cat" / "again.jpg")
    shutil.copy(train / "cat" / "0004.jpg", train / "dog" / "wrong.jpg")
    shutil.copy(train / "cat" / "0005.jpg", validation / "cat" / "leak.jpg")
    shutil.copy(train / "dog" / "0006.jpg", validation / "cat" / "moved.jpg")
    Image.new("RGB", (40, 30), (10, 200, 30)).save(train / "cat" / "plain.jpg")
    Image.effect_noise((12, 12), 80).save(train / "cat" / "tiny.png")
    Image.effect_noise((200, 40), 80).save(train / "cat" / "wide.png")
    pack(tree, root / "shards", workers=1, check="none", max_bytes="64KiB")
    return root / "shards"


def test_it_finds_what_is_wrong(splits: Path, tmp_path: Path) -> None:
    result = report(splits / "train", tmp_path / "report.html")
    [found] = result.datasets
    assert (found.name, found.samples) == ("train", 50)
    groups = [sorted(group) for group in found.duplicates]
    assert sorted(groups) == [["cat/0003", "cat/again"], ["cat/0004", "dog/wrong"]]
    assert found.mislabelled == 1
    assert found.tiny == ("cat/tiny",)
    assert found.extreme_aspect == ("cat/wide",)
    assert found.single_colour == ("cat/plain",)
    assert found.undecodable == ()
    assert found.mixed_as_packed is not None
    assert 0.5 < found.mixed_as_packed <= 1.1
    [leak] = result.leaks
    assert (leak.name, leak.other, leak.relabelled) == ("train", "validation", 1)
    assert sorted(leak.images) == [("cat/0005", "cat/leak"), ("dog/0006", "cat/moved")]
    text = page_of(result.path).text
    for words in ("2 images in both train and validation", "1 group of duplicates with different labels"):
        assert words in text
    assert "1 image is far from square." in text
    assert "cat/wide, 200 x 40" in text
    assert "cat/0005 = cat/leak" in text
    assert "dog/0006 = cat/moved" in text


def test_the_class_directory_gives_the_same_findings_as_its_shards(splits: Path, tmp_path: Path) -> None:
    from_shards = report(splits / "train", tmp_path / "a.html")
    from_tree = report(splits.parent / "data" / "train", tmp_path / "b.html")
    shards, tree = from_shards.datasets[0], from_tree.datasets[0]
    assert {frozenset(group) for group in shards.duplicates} == {frozenset(group) for group in tree.duplicates}
    for name in ("samples", "mislabelled", "tiny", "extreme_aspect", "single_colour"):
        assert getattr(shards, name) == getattr(tree, name)
    assert set(from_shards.leaks[0].images) == set(from_tree.leaks[0].images)


def test_the_page_is_the_same_each_time(splits: Path, tmp_path: Path) -> None:
    first, second = (Path(report(splits / "train", tmp_path / name).path).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_the_page_needs_no_network_and_no_script(splits: Path, tmp_path: Path) -> None:
    text = Path(report(splits / "train", tmp_path / "report.html").path).read_text("utf-8")
    page = Page(text)
    assert [name for name in ("script", "link", "iframe", "object", "base") if page.all(name)] == []
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert not [name for name in attributes if name.startswith("on")]
    addresses = set(re.findall(r"https?://[^\s\"<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not places
    assert any("default-src 'none'" in meta.get("content", "") for meta in page.all("meta"))


def test_the_page_has_landmarks_and_headings_in_order(splits: Path, tmp_path: Path) -> None:
    page = page_of(report(splits / "train", tmp_path / "report.html").path)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    linked = {attributes["href"][1:] for attributes in page.all("a")}
    assert linked <= set(ids)
    assert {section["id"] for section in page.all("section")} <= linked
    named = {name for _, attributes in page.elements for name in attributes.get("aria-labelledby", "").split()}
    assert named <= set(ids)
    assert any("width=device-width" in meta.get("content", "") for meta in page.all("meta"))


def test_every_picture_plot_and_table_can_be_told_without_seeing(splits: Path, tmp_path: Path) -> None:
    page = page_of(report(splits / "train", tmp_path / "report.html").path)
    assert page.all("img")
    assert all(image["alt"] and image["width"] and image["height"] for image in page.all("img"))
    plots = [plot for plot in page.all("svg") if plot.get("role") == "img"]
    assert len(plots) == len(page.all("svg")) >= 5
    assert len(page.all("desc")) == len(plots) == len(page.all("figcaption"))
    tables, captions = page.all("table"), page.all("caption")
    assert len(tables) == len(captions) >= len(plots)
    assert all(head.get("scope") in ("row", "col") for head in page.all("th"))
    scrolled = [part for part in page.all("div") if part.get("class") == "scroll"]
    assert len(scrolled) == len(tables)
    assert all((part["tabindex"], part["role"]) == ("0", "region") and part["aria-label"] for part in scrolled)


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, #rgb or #rrggbb (WCAG 2.2, 1.4.3)."""

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
        parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_colours_can_be_read_in_light_and_dark() -> None:
    from shardkit.tools.report.html import STYLE

    modes = [dict(re.findall(r"--(\w+):(#\w+)", part)) for part in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)]
    assert len(modes) == 2
    for colours in modes:
        for name in ("ink", "faint", "link", "bad", "first", "second"):
            for ground in ("paper", "panel"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


@pytest.mark.parametrize("name", ["<script>alert(1)<", "a&b\"'>", "$\\frac", "猫", "line\nbreak\x1b[31m"])
def test_hostile_names_are_shown_and_do_nothing(name: str, draw_tree: Any, tmp_path: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {name.replace("/", ""): 3, "other": 2})
    shutil.copy(next((tree / name).iterdir()), tree / name / f"{name}.jpg")
    page = page_of(report(tree, tmp_path / "report.html").path)
    assert page.all("script") == []
    shown = name.replace("\n", "\\n").replace("\x1b", "\\x1b")
    assert [text for tag, text in page.texts if tag == "h3" and text.strip() == shown]
    assert [text for tag, text in page.texts if tag == "text" and text.strip() == shown]
    assert any(shown in image["alt"] for image in page.all("img"))


def test_two_datasets_stand_side_by_side(splits: Path, tmp_path: Path) -> None:
    result = report(splits / "train", tmp_path / "report.html", compare=splits / "validation")
    assert [found.name for found in result.datasets] == ["train", "validation"]
    assert len(result.leaks[0].images) == 2
    page = page_of(result.path)
    assert "train and validation, side by side" in page.text
    heads = [text for tag, text in page.texts if tag == "th"]
    assert {"samples in train", "samples in validation"} <= set(heads)
    assert "class maps differ" not in page.text
    balance = "train: from 20 samples (dog) to 30 (cat), 1.5 times as many; validation: from 4 samples (dog) to 6 (cat)"
    assert balance in page.text


def test_class_maps_that_differ_are_told(splits: Path, draw_tree: Any, tmp_path: Path) -> None:
    other = draw_tree(tmp_path / "train", {"bird": 3, "cat": 3})
    result = report(splits / "train", tmp_path / "report.html", compare=other)
    text = page_of(result.path).text
    assert "The class maps differ (only in shards/train: dog; only in" in text
    assert "1 of the shared ones have another label." in text
    assert text.count("The class maps differ") == 2  # in the summary and with the classes


def test_splits_beside_are_searched_and_other_datasets_are_not(splits: Path, draw_tree: Any, tmp_path: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {"a": 3, "b": 2})
    for name in ("mine", "copy", "train"):
        pack(tree, tmp_path / "shards" / name, workers=1)
    assert report(tmp_path / "shards" / "mine", tmp_path / "r.html").leaks == ()
    assert report(tmp_path / "shards" / "train", tmp_path / "r.html").leaks == ()
    shutil.copy(tmp_path / "shards" / "mine.json", tmp_path / "shards" / "test.json")
    [leak] = report(tmp_path / "shards" / "train", tmp_path / "r.html").leaks
    assert (leak.other, len(leak.images)) == ("test", 5)


@pytest.mark.parametrize(("name", "other"), [("training_set", "test_set"), ("train2017", "val2017"), ("Train", "Dev")])
def test_splits_beside_are_known_by_the_rule_for_names_of_splits(
    name: str, other: str, draw_tree: Any, tmp_path: Path
) -> None:
    tree = draw_tree(tmp_path / "tree", {"a": 3, "b": 2})
    for each in (name, other):
        pack(tree, tmp_path / "shards" / each, workers=1)
    [leak] = report(tmp_path / "shards" / name, tmp_path / "r.html").leaks
    assert (leak.other, len(leak.images)) == (other, 5)


def test_a_split_beside_that_is_damaged_is_left_out_with_a_warning(
    draw_tree: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pack(draw_tree(tmp_path / "tree", {"a": 3, "b": 2}), tmp_path / "shards" / "train", workers=1)
    (tmp_path / "shards" / "test.json").write_text("{}")
    assert report(tmp_path / "shards" / "train", tmp_path / "r.html").leaks == ()
    assert "omitted from the search" in caplog.text


def test_images_that_cannot_be_decoded_are_told_with_the_reason(tree: Path, tmp_path: Path) -> None:
    whole = (tree / "red" / "0000.jpg").read_bytes()
    (tree / "red" / "0000.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "red" / "0001.jpg").write_bytes(b"nothing")
    pack(tree, tmp_path / "train", workers=1, check="none")
    for source in (tree, tmp_path / "train"):
        [found] = report(source, tmp_path / "report.html").datasets
        assert [key for key, _ in sorted(found.undecodable)] == ["red/0000", "red/0001"]
        assert all(reason for _, reason in found.undecodable)
        page = page_of(tmp_path / "report.html")
        assert "2 images can't be decoded" in page.text


def test_many_classes_get_a_curve_a_cut_table_and_samples_of_some(draw_tree: Any, tmp_path: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {f"{n:03}": 1 + n % 2 for n in range(170)}, size=(8, 8))
    page = page_of(report(tree, tmp_path / "report.html").path)
    assert "160 of 170 classes" in page.text
    assert len([text for tag, text in page.texts if tag == "h3" and re.fullmatch(r"\d{3} ", text)]) == 160
    assert "class, from the largest to the smallest" in page.text


def test_a_dataset_of_one_image_is_reported(draw_tree: Any, tmp_path: Path) -> None:
    tree = draw_tree(tmp_path / "tree", {"only": 1})
    pack(tree, tmp_path / "train", workers=1)
    for source in (tree, tmp_path / "train"):
        [found] = report(source, tmp_path / "report.html").datasets
        assert (found.samples, found.mixed_as_packed) == (1, None)


def test_shards_without_a_manifest_ask_for_an_index(splits: Path, tmp_path: Path) -> None:
    for path in splits.glob("train-*.tar"):
        shutil.copy(path, tmp_path / path.name)
    with pytest.raises(DatasetError, match="shardkit index"):
        report(tmp_path / "train-*.tar", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_result_must_be_called_html(splits: Path) -> None:
    shard = next(splits.glob("train-*.tar"))
    before = shard.read_bytes()
    with pytest.raises(UsageError, match=r"give one that ends with \.html"):
        report(splits / "train", shard)
    assert shard.read_bytes() == before


def test_without_matplotlib_the_extra_is_named_before_images_are_read(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    told: list[Progress] = []
    with pytest.raises(MissingExtraError, match=r'pip install "shardkit\[report\]"'):
        report(splits / "train", tmp_path / "report.html", progress=told.append)
    assert told == []


@pytest.mark.parametrize("command", ["bench", "shuffle-quality"])
def test_without_matplotlib_a_plot_is_refused_before_anything_is_measured(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as ended:  # the source is missing too, which would be found out first by reading it
        main([command, str(tmp_path / "nothing"), "--plot", str(tmp_path / "plot.png")])
    assert ended.value.code == 2
    assert 'pip install "shardkit[report]"' in capsys.readouterr().err


def test_progress_is_told_by_steps(splits: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    report(splits.parent / "data" / "train", tmp_path / "report.html", progress=seen.append)
    assert {"read", "decode", "mixing", "draw"} <= {each.step for each in seen}


def test_only_files_small_enough_for_one_colour_are_decoded(tmp_path: Path, draw_tree: Any) -> None:
    from shardkit.events import no_progress
    from shardkit.tools.report.checks import find_suspects
    from shardkit.tools.report.facts import collect

    tree = draw_tree(tmp_path / "tree", {"a": 1})
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(tree / "a" / "noise.jpg", quality=95)
    Image.new("RGB", (400, 400), "navy").save(tree / "a" / "plain.jpg", quality=95)
    facts = collect(tree, no_progress)
    found = find_suspects(facts, no_progress)
    assert found.decoded == 2
    assert [facts.keys[row] for row in found.single] == ["a/plain"]


def some_facts(name: str, *, labels: list[int], sizes: list[int]) -> Any:
    """Facts of samples of the classes cat and dog, without the dataset: sizes are -1 where there is no image."""
    from shardkit.tools.report.facts import Facts

    count = len(labels)
    data: Any = None
    side = np.full(count, 32, np.int32)
    return Facts(
        name, "folder", name, data, None, ("cat", "dog"), [f"{n}" for n in range(count)], np.array(labels),
        np.array(sizes), side, side, np.arange(100, 100 + count, dtype=np.uint32), (),
    )  # fmt: skip


def test_samples_without_an_image_are_no_equal_images() -> None:
    from shardkit.tools.report.checks import find_doubles, find_leak

    train = some_facts("train", labels=[0, 0, 1], sizes=[-1, -1, 900])
    test = some_facts("test", labels=[0, 1, 0], sizes=[-1, -1, 900])
    assert find_doubles(train).groups == ()
    twice = replace(train, sizes=np.array([9, 9, 9]), crcs=np.array([7, 7, 8], np.uint32))
    assert find_doubles(twice).groups == ((0, 1),)  # the least of the sums
    leak = find_leak(train, test)
    assert (leak.images, leak.relabelled, leak.pairs) == (1, 1, ((2, 2),))


@pytest.mark.parametrize(
    ("labels", "sizes", "told"),
    [
        ([0, 0, 1], [9, 9, 9], []),
        ([0, -1, 1], [9, 9, 9], ["1 image without a label"]),
        ([0, -1, -1, 1], [0, 9, 9, 9], ["2 images without a label"]),
        ([0, 1, 1], [9, -1, -1], ["2 samples without an image"]),
    ],
)
def test_samples_without_a_label_or_an_image_are_counted_in_the_summary(
    labels: list[int], sizes: list[int], told: list[str]
) -> None:
    from shardkit.tools.report.checks import Doubles, Suspects
    from shardkit.tools.report.sections import Study, _notes_on

    facts = some_facts("train", labels=labels, sizes=sizes)
    study = Study(facts, Doubles((), 0, 0), Suspects((), (), (), (), 0, 0), None)
    assert [re.sub("<[^>]*>", "", note) for note in _notes_on(study)] == told


def test_classes_are_counted_on_both_sides_where_one_has_none(splits: Path, draw_tree: Any, tmp_path: Path) -> None:
    other = draw_tree(tmp_path / "other", {"bird": 3, "cat": 2})
    found = Path(report(splits / "train", tmp_path / "r.html", compare=other).path).read_text("utf-8")
    assert ">8 random samples of each at most" in found  # all 3 classes, which need not be said
    heads = [re.sub("<[^>]*>", "", head) for head in re.findall(r"<h3>\w+ <small>.*?</h3>", found)]
    assert heads == [
        "cat train, label 0, 30 samples", "cat other, label 1, 2 samples",
        "dog train, label 1, 20 samples", "dog other, no samples",
        "bird train, no samples", "bird other, label 0, 3 samples",
    ]  # fmt: skip


def test_the_picture_of_a_group_of_equal_images_is_its_first_one(splits: Path, tmp_path: Path) -> None:
    result = report(splits / "validation", tmp_path / "r.html", compare=splits / "train")
    [section] = re.findall(r'<section id="equal".*?</section>', Path(result.path).read_text("utf-8"), re.DOTALL)
    shown = [image["alt"] for image in Page(section).all("img")]
    pairs = [ours for leak in result.leaks for ours, _ in leak.images]
    groups = [found.duplicates for found in result.datasets]
    assert shown == pairs + [group[0] for each in groups for group in each]
    assert len(groups[1]) == 2


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes that the report's plots are drawn on."""
    pytest.importorskip("matplotlib")
    from shardkit.tools.report import plots as report_plots

    found: list[Any] = []
    original = report_plots._drawing

    @contextmanager
    def recorded(height: float) -> Iterator[Any]:
        with original(height) as (axes, result):
            found.append(axes)
            yield axes, result

    monkeypatch.setattr(report_plots, "_drawing", recorded)
    return found


@pytest.mark.parametrize(("many", "middles"), [(1, [0.0]), (2, [-0.2, 0.2])])
def test_the_bars_of_a_class_lie_side_by_side_on_its_mark(many: int, middles: list[float], drawn: list[Any]) -> None:
    from shardkit.tools.report.plots import class_bars

    series = [(f"set {n}", [40.0, 60.0]) for n in range(many)]
    class_bars(["cat", "dog"], series, share=True)
    [across] = drawn
    places = [[bar.get_y() + bar.get_height() / 2 for bar in bars] for bars in across.containers]
    assert places == [pytest.approx([middle, middle + 1]) for middle in middles]


def test_what_is_counted_is_drawn_from_0_up(drawn: list[Any]) -> None:
    from shardkit.tools.report.plots import class_curve, histogram, histogram_edges, shard_bars

    one, two = [("a", [50.0, 52.0])], [("a", [50.0, 52.0]), ("b", [60.0, 61.0])]
    edges, log = histogram_edges([np.array([1, 2])])
    for series in (one, two):
        class_curve(series, share=False)
        histogram(edges, series, log=log, label="x", shown=str)
        shard_bars(series, label="MB")
    shard_bars([("a", [50.0 + n % 3 for n in range(61)])], label="MB")
    assert [axes.get_ylim()[0] for axes in drawn] == [0] * 7


def test_the_first_dataset_is_filled_and_the_second_an_outline_of_the_same_width(drawn: list[Any]) -> None:
    from shardkit.tools.report.plots import histogram, histogram_edges, shard_bars

    edges, log = histogram_edges([np.array([1, 2])])
    series = [("a", [50.0, 52.0]), ("b", [60.0, 61.0])]
    histogram(edges, series, log=log, label="x", shown=str)
    shard_bars([("a", [50.0, 52.0, 51.0]), ("b", [60.0])], label="MB")
    for axes in drawn:
        assert [patch.get_fill() for patch in axes.patches] == [True, False]
        spans = [patch.get_data().edges[[0, -1]].tolist() for patch in axes.patches]
        assert spans[0] == spans[1]
        assert axes.get_axisbelow() is True  # the grid


def test_the_outline_of_many_shards_has_a_step_around_each_number(drawn: list[Any]) -> None:
    from shardkit.tools.report.plots import shard_bars

    shard_bars([("train", [1.0] * 61)], label="MB")
    [outline] = drawn[0].patches
    assert outline.get_data().edges.tolist() == [number - 0.5 for number in range(62)]
    assert outline.get_fill()


def test_a_few_whole_numbers_have_a_bin_each() -> None:
    from shardkit.tools.report.plots import histogram_edges

    edges, log = histogram_edges([np.array([5, 8]), np.array([6])])
    assert (edges.tolist(), log) == ([5, 6, 7, 8, 9], False)


def test_up_to_60_shards_are_a_bar_each_and_more_are_one_outline(drawn: list[Any]) -> None:
    from shardkit.tools.report.plots import shard_bars

    for count in (60, 61):
        shard_bars([("train", [1.0] * count)], label="MB")
    assert [len(axes.patches) for axes in drawn] == [60, 1]


def test_the_plots_are_well_formed_xml(splits: Path, tmp_path: Path) -> None:
    text = Path(report(splits / "train", tmp_path / "report.html").path).read_text("utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for plot in plots:
        ET.fromstring(plot.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1))
        assert "var(--first)" in plot
        assert "#a1000" not in plot


MEASURE = """
<script>
window.onload = () => {
  const of = (d) => ({width: d.documentElement.scrollWidth, seen: d.documentElement.clientWidth,
    broken: [...d.images].filter(i => i.complete && !i.naturalWidth).length,
    images: d.images.length, text: getComputedStyle(d.body).color});
  const d = document.querySelector("iframe").contentDocument;
  document.title = JSON.stringify(of(d));
};
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_a_phone_and_a_desk(width: int, splits: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    report(splits / "train", tmp_path / "report.html", compare=splits / "validation")
    frame = f'<iframe src="report.html" style="border:0;width:{width}px;height:4000px"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}{MEASURE}", "utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1300,4000",
        f"--screenshot={tmp_path / 'shot.png'}", "--virtual-time-budget=5000",
    ]  # fmt: skip
    address = (tmp_path / "frame.html").as_uri()
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stdout[:500]
    seen = json.loads(title[1])
    assert seen["width"] <= seen["seen"] == width  # nothing sticks out sideways
    assert seen["images"] > 10
    assert seen["broken"] == 0


def test_equal_shards_are_told_by_one_size() -> None:
    from shardkit.tools.report.sections import _shards_told, format_bytes

    assert _shards_told(np.array([2000, 2000])) == f"2 shards of {format_bytes(2000)}"
    assert _shards_told(np.array([2000, 3000])) == f"2 shards of {format_bytes(2000)} to {format_bytes(3000)}"
    assert _shards_told(np.array([2000])) == f"1 shard of {format_bytes(2000)}"


@pytest.mark.parametrize("count", [1, 2])
def test_bars_stand_around_the_place_of_their_name(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = pytest.importorskip("matplotlib.axes").Axes
    from shardkit.tools.report.plots import mixing_bars

    places: list[Any] = []
    draw = axes.bar
    monkeypatch.setattr(
        axes, "bar", lambda self, at, *rest, **options: places.append(at) or draw(self, at, *rest, **options)
    )
    mixing_bars(["0", "100"], [(str(number), np.array([50.0, 90.0])) for number in range(count)])
    assert len(places) == count
    np.testing.assert_allclose(np.mean(places, axis=0), [0, 1], atol=1e-9)
    assert len({float(at[0]) for at in places}) == count


def test_the_samples_that_are_shown_follow_the_seed(splits: Path, tmp_path: Path) -> None:
    def alts(seed: int) -> list[str]:
        page = page_of(report(splits / "train", tmp_path / "r.html", seed=seed).path)
        return [image["alt"] for image in page.all("img")][:16]

    assert alts(0) == alts(0) != alts(1)
    keys = {sample["__key__"] for sample in dataset(splits / "train")}
    assert set(alts(0)) <= keys


def test_a_list_of_shards_gives_a_report_with_its_mixing(splits: Path, tmp_path: Path) -> None:
    shards = sorted(str(path) for path in splits.glob("train-*.tar"))
    whole, some = report(splits / "train", tmp_path / "a.html"), report(shards, tmp_path / "b.html")
    assert some.datasets[0] == whole.datasets[0]
    part = report(shards[:2], tmp_path / "c.html").datasets[0]
    assert 1 < part.samples < 50
    assert part.mixed_as_packed is not None


def test_a_dataset_in_a_store_gives_the_same_report_and_finds_its_other_splits(splits: Path, tmp_path: Path) -> None:
    from shardkit import upload

    upload(splits, "memory://report/")
    here, there = report(splits / "train", tmp_path / "a.html"), report("memory://report/train", tmp_path / "b.html")
    assert (there.datasets, there.leaks) == (here.datasets, here.leaks)
    assert len(there.leaks) == 1


def test_one_size_of_all_images_is_told_and_several_are_drawn(splits: Path, tree: Path, tmp_path: Path) -> None:
    one = page_of(report(tree, tmp_path / "one.html").path)
    assert "All images have 40 x 30 pixels." in one.text
    several = page_of(report(splits / "train", tmp_path / "several.html").path)
    assert "All images have" not in several.text
    assert {"Image width", "Image height", "Aspect ratio"} <= {text for tag, text in several.texts if tag == "h3"}
    assert "From 12 to 200, the median is 40" in several.text
    assert re.search(r"median image size\s+40 x 30", several.text)
    assert re.search(r"(?<!median )image size\s+40 x 30", one.text)
    assert "From 12 to 40, the median is 30" in several.text


def test_three_of_a_group_of_equal_images_are_named_and_the_rest_counted(tree: Path, tmp_path: Path) -> None:
    for number in range(4):
        shutil.copy(tree / "red" / "0000.jpg", tree / "red" / f"copy-{number}.jpg")
    text = page_of(report(tree, tmp_path / "report.html").path).text
    assert "5 times: red/0000, red/copy-0, red/copy-1 and 2 more" in text
    (tree / "red" / "copy-3.jpg").unlink()
    (tree / "red" / "copy-2.jpg").unlink()
    text = page_of(report(tree, tmp_path / "report.html").path).text
    assert re.search(r"3 times: red/0000, red/copy-0, red/copy-1\s", text + " ")


def test_six_names_are_listed_and_the_rest_counted() -> None:
    from shardkit.tools.report.checks import _listed

    names = list("abcdefgh")
    assert _listed(names[:6]) == "a, b, c, d, e, f"
    assert _listed(names[:7]) == "a, b, c, d, e, f and 1 more"
    assert _listed(names) == "a, b, c, d, e, f and 2 more"
