"""The filters of the page in a browser, and their expression in Python."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tools.viewer.browser import Browser
from tools.viewer.screen import COUNT, DRAWN, KEYS, PYTHON, copied, keys_of, open_page, part, set_value
from tools.viewer.site import Site

from shardkit import TableColumns, dataset, pack


def test_a_filter_is_in_the_address_and_in_python(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.click("[data-class=red]")
    set_value(browser, "[data-column=width][data-bound='0']", "30")
    set_value(browser, "[data-column=height][data-bound='1']", "30")
    set_value(browser, "[data-text=key]", "red/")
    browser.wait(f"{COUNT} === '7 of 13 samples'")
    shown, address = keys_of(browser), browser.run("location.hash")
    expression = copied(browser, "copy-where", "Expression copied")
    assert expression == browser.run(PYTHON)
    ds = dataset(shards / "train")
    found = eval(expression, {"ds": ds, "pc": pc})
    assert list(found.keys) == shown
    assert len(shown) == 7
    browser.click("[data-part=reset]")
    browser.wait(f"{COUNT} === '13 samples'")
    assert browser.run("location.hash") == ""
    open_page(browser, site, shards / "train", address)
    browser.wait(f"{COUNT} === '7 of 13 samples'")
    assert keys_of(browser) == shown
    assert browser.run(PYTHON) == expression
    browser.run("location.hash = 'class=blue'")
    browser.wait(f"{COUNT} === '5 of 13 samples'")


def test_filters_that_are_changed_right_after_each_other_all_hold(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    browser.run("""
        const set = (query, value, kind = "input") => {
            const input = document.querySelector(query);
            input.value = value;
            input.dispatchEvent(new Event(kind, { bubbles: true }));
        };
        set("[data-column=width][data-bound='0']", "30");
        set("[data-column=height][data-bound='1']", "30");
        document.querySelector("[data-class=red]").click();
        set("[data-text=key]", "red/");
        set("[data-part=sort]", "-width", "change");
    """)
    browser.wait(f"{COUNT} === '7 of 13 samples'")
    hash = set(browser.run("location.hash").removeprefix("#").split("&"))
    assert hash == {"class=red", "range.width=30..", "range.height=..30", "text.key=red%2F", "sort=-width"}
    browser.run("""
        set("[data-text=key]", "blue/");
        document.querySelector("[data-part=reset]").click();
    """)
    browser.wait(f"{COUNT} === '13 samples'")
    browser.run("new Promise((resolve) => setTimeout(resolve, 300))")
    assert browser.run("location.hash") == "" and browser.run(COUNT) == "13 samples"


def test_an_address_that_makes_no_sense_filters_nothing(site: Site, tree: Path, browser: Browser) -> None:
    pack(tree, site.folder / "train", workers=1)
    wrong = (
        "#class=nobody&split=none&range.width=a..b&range.nothing=1..2&text.label=3&sort=-nothing&x&range.__proto__=1.."
    )
    open_page(browser, site, site.folder / "train", wrong)
    browser.wait(f"{DRAWN} === 12")
    assert browser.run(COUNT) == "12 samples"
    assert browser.errors == []


@pytest.mark.parametrize(
    ("hash", "expected"),
    [
        ("range.width=40..40", 'ds.where(pc.field("width") == 40)'),
        (
            "range.width=..50&range.image_size=1..",
            'ds.where((pc.field("width") <= 50) & (pc.field("image_size") >= 1))',
        ),
        ("class=red&class=blue", 'ds.where(pc.field("label").isin([0, 1]))'),
        ("text.shard=train-000001", 'ds.where(pc.match_substring(pc.field("shard").cast("string"), "train-000001"))'),
        ('text.path=a"\\', 'ds.where(pc.match_substring(pc.field("path"), "a\\"\\\\"))'),
        ("range.crc32c=2147483648..", 'ds.where(pc.field("crc32c") >= 2147483648)'),
    ],
)
def test_the_expression_gives_the_samples_that_are_shown(
    hash: str, expected: str, splits: Path, site: Site, browser: Browser
) -> None:
    pack(splits / "train", site.folder / "train", workers=1, max_count=5)
    open_page(browser, site, site.folder / "train", f"#{quote(hash, safe='=&.')}")
    browser.wait(f"{PYTHON}.startsWith('ds')")
    assert browser.run(PYTHON) == expected
    found = eval(expected, {"ds": dataset(site.folder / "train"), "pc": pc})
    told = "10 samples" if len(found) == 10 else f"{len(found)} of 10 samples"
    browser.wait(f"{COUNT} === '{told}'")
    assert not len(found) or keys_of(browser) == list(found.keys)


def test_labels_that_differ_between_splits_give_an_expression_for_each(
    tmp_path: Path, draw_tree: Any, site: Site, browser: Browser
) -> None:
    for name, counts in (("train", {"cat": 2, "dog": 3}), ("test", {"dog": 2})):
        pack(draw_tree(tmp_path / name, counts), site.folder / name, workers=1)
    open_page(browser, site, site.folder, "#class=dog")
    browser.wait(f"{COUNT} === '5 of 7 samples'")
    assert browser.run(PYTHON).split("\n") == [
        'test.where(pc.field("label") == 0)', 'train.where(pc.field("label") == 1)'
    ]  # fmt: skip


def test_samples_are_sorted_by_a_column(shards: Path, site: Site, browser: Browser) -> None:
    open_page(browser, site, shards / "train")
    index = {sample["__key__"]: len(next(v for k, v in sample.items() if k in ("jpg", "png", "webp"))) for sample in dataset(shards / "train")}  # fmt: skip  # noqa: E501
    for sign, backward in (("+", False), ("-", True)):
        set_value(browser, "[data-part=sort]", f"{sign}image_size")
        wanted = sorted(index, key=lambda key: -index[key] if backward else index[key])
        browser.wait(f"JSON.stringify({KEYS}) === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")
    assert browser.run("location.hash") == "#sort=-image_size"


def test_further_columns_of_an_index_are_filters(tree: Path, site: Site, browser: Browser) -> None:
    add_columns(tree, site.folder, sharp=np.linspace(0, 1, 12), dark=np.arange(12) % 2 == 0)
    open_page(browser, site, site.folder / "train", "#range.sharp=0.5..&range.dark=1..1")
    browser.wait(f"{COUNT} === '3 of 12 samples'")
    assert browser.run(PYTHON) == 'ds.where((pc.field("sharp") >= 0.5) & (pc.field("dark") == True))'
    assert list(eval(browser.run(PYTHON), {"ds": dataset(site.folder / "train"), "pc": pc}).keys) == keys_of(browser)
    legends = browser.run(
        "[...document.querySelectorAll('[data-part=columns] legend')].map((each) => each.textContent)"
    )
    assert legends == ["Key contains", "Width", "Height", "Bytes", "sharp", "dark"]
    assert browser.run(
        "[...document.querySelector('[data-part=sort]').options].some((each) => each.value === '-sharp')"
    )


def test_the_columns_of_a_list_are_filters_and_dates_are_shown(tree: Path, site: Site, browser: Browser) -> None:
    paths = sorted(map(str, tree.rglob("*.*")))
    day = datetime.date(2024, 5, 1)
    table = {
        "path": paths, "label": [Path(path).parent.name for path in paths], "age": [3 * n for n in range(12)],
        "sure": [n % 2 == 0 for n in range(12)], "city": ["Bern", "Zürich", None] * 4, "day": [day] * 12,
        "taken": [datetime.datetime(2024, 5, 1, 10, 30)] * 12, "box": [[1, 2]] * 12,
    }  # fmt: skip
    pack(pa.table(table), site.folder / "train", workers=1, columns=TableColumns(root="/"))
    open_page(browser, site, site.folder / "train", "#range.meta.age=6..24&text.meta.city=rich&range.meta.sure=0..0")
    browser.wait(f"{COUNT} === '1 of 12 samples'")
    python = browser.run(PYTHON)
    assert 'pc.field("meta.age") >= 6' in python
    assert list(eval(python, {"ds": dataset(site.folder / "train"), "pc": pc}).keys) == keys_of(browser)
    legends = browser.run(
        "[...document.querySelectorAll('[data-part=columns] legend')].map((each) => each.textContent)"
    )
    assert legends[4:] == ["meta.age", "meta.sure", "meta.city contains", "meta.day", "meta.taken (UTC)"]
    assert browser.run(f"{part('missing')}.textContent") == "Columns that are not shown here: meta.box."
    browser.click(".cell[data-place='0']")
    rows = "[...document.querySelectorAll('.facts tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    browser.wait(f"{rows}.length === 16")
    told = dict(browser.run(rows))
    assert (told["meta.day"], told["meta.taken"]) == ("2024-05-01", "2024-05-01 10:30:00.000")


@pytest.mark.parametrize(
    ("column", "kind", "bounds"),
    [
        ("day", pa.date32(), ("2024-05-03", "2024-05-08")),
        ("taken", pa.timestamp("us"), ("2024-05-03T10:30", "2024-05-08T10:30:00.250")),
        ("seen", pa.timestamp("us", "UTC"), ("2024-05-03T10:30:01", "")),
    ],
    ids=["day", "time", "UTC"],
)
def test_days_and_points_in_time_are_filters(
    column: str, kind: pa.DataType, bounds: tuple[str, str], tree: Path, site: Site, browser: Browser
) -> None:
    paths = sorted(map(str, tree.rglob("*.*")))
    zone = datetime.UTC if kind == pa.timestamp("us", "UTC") else None
    times = [datetime.datetime(2024, 5, day, 10, 30, tzinfo=zone) for day in range(1, 12)]
    values = [*([time.date() for time in times] if kind == pa.date32() else times), None]
    labels = [Path(path).parent.name for path in paths]
    table = pa.table({"path": paths, "label": labels, column: pa.array(values, kind)})
    pack(table, site.folder / "train", workers=1, columns=TableColumns(root="/"))
    name = f"meta.{column}"
    open_page(browser, site, site.folder / "train")
    wanted = 0
    for end, value in enumerate(filter(None, bounds)):
        set_value(browser, f"[data-time='{name}'][data-end='{end}']", value)
        wanted = 6 if end else 8 if zone else 9
        browser.wait(f"{COUNT} === '{wanted} of 12 samples'")
    scope = {"ds": dataset(site.folder / "train"), "pc": pc, "datetime": datetime}
    assert list(eval(browser.run(PYTHON), scope).keys) == keys_of(browser)
    address, keys = browser.run("location.hash"), keys_of(browser)
    open_page(browser, site, site.folder / "train", address)
    browser.wait(f"{COUNT} === '{wanted} of 12 samples'")
    assert keys_of(browser) == keys
    assert browser.run(f"document.querySelector(\"[data-time='{name}']\").value").startswith(bounds[0])
    set_value(browser, "[data-part=sort]", f"-{name}")
    browser.wait(f"JSON.stringify({KEYS}) !== {json.dumps(json.dumps(keys, separators=(',', ':')))}")
    assert browser.errors == []
    browser.run(f"location.hash = 'time.{name}=yesterday..'")
    browser.wait(f"{COUNT} === '12 samples'")


def add_columns(tree: Path, folder: Path, **columns: Any) -> None:
    """Pack a tree, and add columns to its index."""
    import pyarrow.parquet as pq

    from shardkit.checksums import crc32c

    pack(tree, folder / "train", workers=1)
    table = pq.read_table(folder / "train.parquet")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, folder / "train.parquet", compression="zstd", write_page_checksum=True)
    data = (folder / "train.parquet").read_bytes()
    manifest = json.loads((folder / "train.json").read_text("utf-8"))
    manifest["index"][0] |= {"bytes": len(data), "crc32c": f"{crc32c(data):08x}"}
    (folder / "train.json").write_text(json.dumps(manifest), "utf-8")
