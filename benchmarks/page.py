#!/usr/bin/env python3
"""Time and bytes of the page that `shardkit view --html` writes, in headless Chromium over a slow server.

    python benchmarks/page.py shards/train          one dataset, 5 times, 30 ms for each request
    python benchmarks/page.py --rows 1000000 --shards 20   filters, over a made-up index

The server is that of `--serve`; it waits before it accepts a connection and before it answers a request. The browser is
new each time and its cache is off. Bytes are what the server sent until then, the page included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "tools" / "viewer"))

from browser import Browser, chromium

from shardkit.checksums import crc32c
from shardkit.shards.index import ShardRows, write_index
from shardkit.shards.manifest import ClassEntry, IndexEntry, Manifest, ShardEntry, encode_manifest
from shardkit.tools.viewer import serve
from shardkit.tools.viewer.page import ViewPage, view_page

FILTERS = ("class=class 3", "class=class 3&class=class 4", "range.width=700..", "text.key=/0012", "sort=-width")
IMAGE_BYTES, STEP = 8 * 1024, 16 * 1024
APPLY = """(async (hash) => {
  const begin = performance.now();
  const changed = new Promise((done) => addEventListener('hashchange', done, { once: true }));
  location.hash = hash;
  await changed;
  while (document.querySelector('[aria-busy]')) await new Promise((done) => setTimeout(done, 2));
  return [performance.now() - begin, document.querySelector('[data-part=count]').textContent];
})"""


class Slow(serve._Handler):
    """Waits before each connection and answer, and counts what it sends."""

    wait_seconds = 0.03
    sent: list[int] = []  # noqa: RUF012

    def setup(self) -> None:
        time.sleep(self.wait_seconds)
        super().setup()

    def do_GET(self) -> None:  # noqa: N802
        time.sleep(self.wait_seconds)
        super().do_GET()

    def _answer(self, status: int, head: object, length: int = 0) -> None:
        self.sent.append(length)
        super()._answer(status, head, length)  # type: ignore[arg-type]


@contextmanager
def served(page: ViewPage) -> Iterator[str]:
    serve._Handler = Slow  # type: ignore[misc]
    with serve.PageServer(page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.address
        server.shutdown()


def first_pictures(browser: Browser, address: str, pictures: int) -> list[tuple[float, int, int]]:
    """(ms, requests, bytes) when the first picture, and when `pictures` are there."""
    browser.send("Network.setCacheDisabled", cacheDisabled=True)
    Slow.sent.clear()
    browser.open(address)
    found = []
    for count in (1, pictures):
        drawn = f"[...document.querySelectorAll('.cell img')].filter((each) => each.naturalWidth).length >= {count}"
        browser.wait(drawn)
        found.append((float(browser.run("performance.now()")), len(Slow.sent), sum(Slow.sent)))
    first = float(browser.run("performance.getEntriesByName('first-picture')[0].startTime"))
    return [(first, *found[0][1:]), found[1]]


def make_index(folder: Path, rows: int, shards: int) -> Path:
    """A dataset of random rows, whose images are empty: the time of the index alone."""
    rng, entries, counts, parts = np.random.default_rng(0), [], np.zeros(10, np.int64), []
    each = rows // shards
    for number in range(shards):
        name = f"train-{number:06}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(each * STEP)
        offsets = np.arange(each) * STEP
        numbers = {
            "label": rng.integers(0, 10, each), "offset": offsets, "size": np.full(each, STEP),
            "image_offset": offsets + 512, "image_size": rng.integers(500, IMAGE_BYTES, each),
            "width": rng.integers(100, 800, each), "height": rng.integers(100, 800, each),
            "crc32c": rng.integers(0, 1 << 32, each),
        }  # fmt: skip
        keys = [f"{number:03}/{row:06}_{code:06x}" for row, code in enumerate(rng.integers(0, 1 << 24, each).tolist())]
        parts.append(ShardRows(name, keys, keys, numbers))
        entries.append(ShardEntry(name, each, each * STEP, "00000000"))
        counts += np.bincount(numbers["label"], minlength=10)
    with (folder / "train.parquet").open("wb") as sink:
        write_index(sink, parts)
    data = (folder / "train.parquet").read_bytes()
    classes = tuple(ClassEntry(f"class {label}", int(count)) for label, count in enumerate(counts))
    index = (IndexEntry("train.parquet", shards, len(data), f"{crc32c(data):08x}"),)
    manifest = Manifest(
        samples=each * shards, bytes=each * shards * STEP, shards=tuple(entries), classes=classes, index=index, plan="0"
    )
    (folder / "train.json").write_bytes(encode_manifest(manifest))
    print(f"{each * shards:,} rows in {shards} row groups: an index of {len(data) / 1e6:.1f} MB")
    return folder / "train"


def time_filters(address: str) -> None:
    with chromium() as browser:
        browser.size(1280, 860)
        browser.open(address)
        browser.wait("document.querySelector('.cell')?.getAttribute('aria-label')")
        time.sleep(1)
        for text in FILTERS:
            before, requests = sum(Slow.sent), len(Slow.sent)
            milliseconds, told = browser.run(f"{APPLY}({text!r})")
            sent = (sum(Slow.sent) - before) / 1e6
            print(f"{text:30} {milliseconds:6.0f} ms  {len(Slow.sent) - requests:4} requests  {sent:5.2f} MB  {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--latency", type=float, default=30, help="milliseconds")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=24)
    asked = parser.parse_args()
    Slow.wait_seconds = asked.latency / 1e3
    with tempfile.TemporaryDirectory() as folder:
        if asked.rows:
            page = view_page(make_index(Path(folder), asked.rows, asked.shards))
        else:
            page = view_page(asked.source, Path(asked.source).with_name("benchmark.html"))
        with served(page) as address:
            if asked.rows:
                time_filters(address)
                return
            found = []
            for _ in range(asked.repeat):
                with chromium() as browser:
                    browser.size(1280, 860)
                    found.append(first_pictures(browser, address, asked.pictures))
        Path(page.path).unlink()
    for what, each in (("first picture", 0), (f"{asked.pictures} pictures", 1)):
        times = [one[each][0] for one in found]
        low, high = min(times), max(times)
        middle = statistics.median(times)
        requests, sent = (statistics.median(one[each][n] for one in found) for n in (1, 2))
        print(f"{what:14} {middle:5.0f} ms ({low:.0f} to {high:.0f}), {requests:.0f} requests, {sent / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
