from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import shardkit
from shardkit import Stats
from shardkit.reading.stats import live, record
from shardkit.reading.stats.live import Line


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, draw_tree: Any) -> str:
    return str(draw_tree(tmp_path_factory.mktemp("live"), {"a": 40, "b": 60}))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report after each batch."""
    monkeypatch.setattr(record, "TELL_SECONDS", 0.0)


def test_reports_cover_the_iteration_without_overlap(tree: str, always: None) -> None:
    told: list[Stats] = []
    data = shardkit.dataset(tree, on_stats=told.append).decode(size=16).batch(10)
    assert sum(1 for _ in data) == 10
    assert (sum(each.batches for each in told), sum(each.samples for each in told)) == (10, 100)
    assert len(told) > 5
    assert sum(each.wait.count for each in told) == data.stats().wait.count


def test_there_is_a_report_at_the_end_of_each_epoch_and_of_one_that_is_broken_off(tree: str) -> None:
    told: list[Stats] = []
    data = shardkit.dataset(tree, on_stats=told.append).decode(size=16).batch(10)
    for _ in data.repeat(2):
        pass
    assert [each.batches for each in told] == [10, 10]
    told.clear()
    for number, _ in enumerate(data):
        if number == 3:
            break
    assert [each.batches for each in told] == [4]


def test_each_iteration_reports_its_own(tree: str) -> None:
    told: list[Stats] = []
    data = shardkit.dataset(tree, on_stats=told.append).decode(size=16).batch(10)
    assert sum(1 for _ in zip(data, data, strict=True)) == 10
    assert [each.batches for each in told] == [10, 10]


def test_an_error_of_the_function_comes_out(tree: str) -> None:
    def fail(stats: Stats) -> None:
        raise ValueError("no server")

    with pytest.raises(ValueError, match="no server"):
        list(shardkit.dataset(tree, on_stats=fail).decode(size=16).batch(10))


def test_mixes_keep_the_function(tree: str) -> None:
    told: list[Stats] = []
    part = shardkit.dataset(tree, on_stats=told.append)
    list(shardkit.mix([part, shardkit.dataset(tree)]).decode(size=16).batch(50))
    assert [each.samples for each in told] == [200]


def test_wrong_values_are_refused(tree: str) -> None:
    with pytest.raises(shardkit.UsageError, match="on_stats"):
        shardkit.dataset(tree, on_stats=3)  # type: ignore[arg-type]
    with pytest.raises(shardkit.UsageError, match="progress"):
        shardkit.dataset(tree, progress="yes")  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_ends_with_the_epoch(
    tree: str, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    data = shardkit.dataset(tree, progress=True).decode(size=16).batch(10)
    list(pickle.loads(pickle.dumps(data)))
    text = terminal.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    assert text.count("\r") > 5
    assert text.rpartition("\r")[2].startswith("10 batches | ")
    assert "samples/s | waits " in text


def test_what_is_no_terminal_gets_nothing(tree: str, always: None, capfd: pytest.CaptureFixture[str]) -> None:
    list(shardkit.dataset(tree, progress=True).decode(size=16).batch(10))
    assert capfd.readouterr() == ("", "")


def test_a_shorter_line_replaces_a_longer_one() -> None:
    terminal = Terminal()
    line = Line(terminal)
    line.show("a long line")
    line.show("short")
    line.end()
    line.end()
    assert terminal.getvalue() == "\ra long line\rshort      \n"


def test_a_notebook_gets_one_output_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, Any]] = []
    handle = SimpleNamespace(update=lambda content, raw: shown.append(("update", content)))

    def display(content: Any, *, raw: bool, display_id: bool) -> Any:
        shown.append(("display", content))
        return handle

    shell = SimpleNamespace(kernel=object())
    module = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))  # type: ignore[arg-type]
    assert live.in_notebook()
    line = Line(io.StringIO())
    line.show("one")
    line.show("two")
    assert shown == [("display", {"text/plain": "one"}), ("update", {"text/plain": "two"})]
    shell.kernel = None  # type: ignore[assignment]
    assert not live.in_notebook()


def test_the_representation_does_not_show_the_function(tree: str) -> None:
    assert "lambda" not in repr(shardkit.dataset(tree, on_stats=lambda stats: None))
    assert Path(tree).name in repr(shardkit.dataset(tree, progress=True))
