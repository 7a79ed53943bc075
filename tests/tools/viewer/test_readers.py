"""The page's reader of Parquet and Zstandard, in a browser, against pyarrow."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tools.viewer.browser import Browser

from shardkit.tools.viewer.page import SCRIPTS, WEB

ROWS = 30_000
READ = """
(async (data, part) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const size = wordAt(bytes, bytes.length - 8), found = {};
  const { columns, groups } = readFooter(bytes.subarray(bytes.length - 8 - size, bytes.length - 8));
  for (const { name, kind, unit } of columns) {
    if (!kind) continue;
    found[name] = { kind, unit, range: groups[0].columns.get(name).range, values: [] };
    for (const group of groups) {
      const place = group.columns.get(name), end = Math.floor(place.begin + (place.end - place.begin) * part);
      const read = readColumn(place, bytes.subarray(place.begin, end));
      if (part === 1 && read.count !== group.rows) throw new Error(`${name}: ${read.count} of ${group.rows} rows`);
      const get = (_, row) => (kind === "wide" ? String(read.get(row)) : read.get(row));
      found[name].values.push(...Array.from({ length: read.count }, get));
    }
  }
  return found;
})
"""


@pytest.fixture
def reader(browser: Browser) -> Browser:
    """A tab with the functions of the page's readers."""
    browser.send("Page.navigate", url="about:blank")
    browser.wait("document.readyState === 'complete' && location.href === 'about:blank'")
    scripts = SCRIPTS[: SCRIPTS.index("parquet") + 1]
    source = "".join((WEB / f"{name}.js").read_text("utf-8") for name in scripts)
    names = "readFooter, readColumn, wordAt, unzstd"
    browser.run(f"(() => {{ {source}; Object.assign(globalThis, {{ {names} }}); }})()")
    return browser


def read(reader: Browser, data: bytes, part: float = 1) -> Any:
    return reader.run(f"{READ}({json.dumps(base64.b64encode(data).decode())}, {part})")


def a_table(rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(5)
    words = ["cat", "Füße", "", "dog/000123", "x" * 300]
    return pa.table({
        "shard": pa.array(["train-000000.tar"] * rows).dictionary_encode(),
        "key": [f"class {n % 7}/{n * 7919 % rows:06d}" for n in range(rows)],
        "text": pa.array([None if n % 5 == 0 else words[n % 3] for n in range(rows)]),
        "chosen": pa.array([words[n] for n in rng.integers(0, 5, rows)]).dictionary_encode(),
        "label": pa.array([None if n % 97 == 0 else int(n) for n in rng.integers(0, 1000, rows)], pa.int64()),
        "offset": np.cumsum(rng.integers(500, 90_000, rows)),
        "beyond": (1 << 40) + rng.integers(-(1 << 50), 1 << 50, rows),
        "none": pa.array([None] * rows, pa.int64()),
        "width": pa.array(rng.integers(-5, 5000, rows), pa.int32()),
        "crc32c": pa.array(rng.integers(0, 1 << 32, rows), pa.uint32()),
        "score": pa.array([None if n % 3 == 0 else float(x) for n, x in enumerate(rng.random(rows))]),
        "single": rng.random(rows).astype(np.float32),
        "flag": pa.array([None if n % 11 == 0 else bool(n % 2) for n in range(rows)]),
        "hash": pa.array(rng.integers(0, 1 << 63, rows).astype("u8") * 2 + 1, pa.uint64()),
        "list": pa.array([[1, 2]] * rows),
        "struct": pa.array([{"a": 1}] * rows),
        "blob": pa.array([b"\0\xff"] * rows),
        "last": rng.integers(0, 3, rows),
    })  # fmt: skip


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **({"compression": "zstd", "write_page_checksum": True} | options))
    return sink.getvalue()


def values_of(table: pa.Table, name: str) -> list[Any]:
    found: list[Any] = table[name].to_pylist()
    if name == "hash":
        return [str(value) for value in found]
    return [None if value is None else int(value) for value in found] if name == "flag" else found


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": ["shard", "label", "width"]},
        {"use_dictionary": True},
        {"use_dictionary": False},
        {"use_dictionary": ["text"], "data_page_size": 4096},
        {"compression": "none"},
        {"data_page_version": "2.0"},
        {"row_group_size": 7001},
        {"compression_level": 19},
        {"compression_level": -5},
        {
            "use_dictionary": False,
            "column_encoding": {
                "offset": "DELTA_BINARY_PACKED",
                "width": "DELTA_BINARY_PACKED",
                "last": "DELTA_BINARY_PACKED",
            },
        },
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_every_value_is_that_of_pyarrow(options: dict[str, Any], reader: Browser) -> None:
    table = a_table()
    found = read(reader, parquet(table, **options))
    assert list(found) == [name for name in table.column_names if name not in ("list", "struct", "blob")]
    for name, column in found.items():
        assert column["values"] == values_of(table, name), name
    kinds = {name: column["kind"] for name, column in found.items()}
    assert kinds["hash"] == "wide"
    assert kinds["flag"] == "flag"
    assert {kinds[name] for name in ("shard", "key", "text", "chosen")} == {"text"}


def test_dates_and_points_in_time_are_numbers_with_a_unit(reader: Browser) -> None:
    numbers = [None, 0, 19_844, -1]
    table = pa.table({
        "day": pa.array(numbers, pa.date32()), "ms": pa.array(numbers, pa.timestamp("ms", "UTC")),
        "us": pa.array(numbers, pa.timestamp("us")), "ns": pa.array(numbers, pa.timestamp("ns")),
    })  # fmt: skip
    found = read(reader, parquet(table))
    assert {name: column["kind"] for name, column in found.items()} == dict.fromkeys(table.column_names, "time")
    assert [column["unit"] for column in found.values()] == [86_400_000, 1, 0.001, 0.000001]
    assert all(column["values"] == numbers for column in found.values())


def test_statistics_give_the_least_and_greatest_number(reader: Browser) -> None:
    table = a_table(1000)
    found = read(reader, parquet(table))
    for name in ("width", "crc32c", "offset", "score", "single"):
        numbers = [value for value in table[name].to_pylist() if value is not None]
        assert found[name]["range"] == [min(numbers), max(numbers)]
    assert found["key"]["range"] is None
    assert found["none"]["range"] is None


@pytest.mark.parametrize("part", [0.6, 0.75, 0.93])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_first_part_of_a_column_gives_its_first_rows(part: float, version: str, reader: Browser) -> None:
    table = a_table()
    found = read(reader, parquet(table, data_page_version=version, use_dictionary=["label"]), part)
    for name, column in found.items():
        assert column["values"] == values_of(table, name)[: len(column["values"])], name
    assert 0 < len(found["key"]["values"]) < ROWS


def test_no_rows_are_no_values(reader: Browser) -> None:
    found = read(reader, parquet(a_table(0)))
    assert all(column["values"] == [] for column in found.values())


FUZZ = """
(async (data, seed, turns) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0)), told = {};
  const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;
  const size = wordAt(bytes, bytes.length - 8), begin = bytes.length - 8 - size;
  for (let turn = 0; turn < turns; turn++) {
    const bad = bytes.slice();
    const end = turn % 2 ? begin : bytes.length - 8;
    for (let n = 1 + random() * 4; n > 0; n--) bad[Math.floor(random() * end)] = random() * 256;
    try {
      const { groups } = readFooter(bad.subarray(begin, bytes.length - 8));
      for (const place of groups[0].columns.values()) readColumn(place, bad.subarray(place.begin, place.end));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
    }
    const [place] = [readFooter(bytes.subarray(begin, bytes.length - 8)).groups[0].columns.get("key")];
    try { unzstd(bad.subarray(place.begin + 20, place.end), 1 << 20); } catch (error) { told[error.message] = true; }
  }
  return Object.keys(told).length;
})
"""


def test_damaged_bytes_are_an_error_or_other_values_and_never_a_hang(reader: Browser) -> None:
    columns = ["shard", "key", "text", "label", "offset", "flag", "hash"]
    for seed, options in enumerate(({}, {"use_dictionary": False}, {"data_page_version": "2.0"})):
        data = base64.b64encode(parquet(a_table(300).select(columns), **options)).decode()
        assert reader.run(f"{FUZZ}({json.dumps(data)}, {seed + 1}, 400)") >= 1


@pytest.mark.parametrize("codec", ["snappy", "gzip"])
def test_another_compression_is_told(codec: str, reader: Browser) -> None:
    data = json.dumps(base64.b64encode(parquet(a_table(10), compression=codec)).decode())
    told = reader.run(f"{READ}({data}, 1).catch((error) => error.message)")
    assert "is not Zstandard; write it again with shardkit index" in told
