"""What it costs to index shards that one may only read: bytes, requests, seconds; and to open them again.

    python benchmarks/foreign.py [--latency 0.03] [--samples 500] [--shards 1024]

Shards are drawn, and served by a web server of this script, which notes each range and answers after the latency. All
figures are from its notes but the seconds. Every opening is a process of its own, timed after the imports, to the
length and to the first sample; each is the median of several.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

import shardkit
from shardkit.formats.tfrecord.samples import encode_sample

SHARDS = 16
"""Shards of the measurements of bytes."""

SIZES = {"10 kB": 10_000, "100 kB": 100_000}


class Handler(BaseHTTPRequestHandler):
    """Answers ranges with 206 after the latency, and notes them."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    latency = 0.0
    noted: ClassVar[list[int]] = []
    at_once = most_at_once = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        kind = type(self)
        with kind.lock:
            kind.at_once += 1
            kind.most_at_once = max(kind.most_at_once, kind.at_once)
        time.sleep(self.latency)
        try:
            self._answer()
        finally:
            with kind.lock:
                kind.at_once -= 1

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}-{size:x}"')
        self.end_headers()
        body = end - start if self.command == "GET" else 0
        self.noted.append(body)
        if body:
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(body))

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path, latency: float) -> Iterator[tuple[str, type[Handler]]]:
    """The URL of a folder, and the notes of its server."""
    handler = type("Noting", (Handler,), {"folder": folder, "latency": latency, "noted": [], "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()


def picture(size: int) -> bytes:
    """A JPEG of `size` bytes, of which those after its end are zeros."""
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(sink, "JPEG")
    return sink.getvalue().ljust(size, b"\0")


def fields_of(layout: str, image: bytes, number: int) -> list[tuple[str, bytes]]:
    """The fields of a sample."""
    if layout == "jpg, cls":
        return [("jpg", image), ("cls", b"%d" % (number % 1000))]
    told = json.dumps(
        {"caption": "a picture " * 20, "key": f"{number:09}", "url": "https://host/" + "x" * 60, "sha256": "0" * 64}
    )
    return [("jpg", image), ("json", told.encode()), ("txt", b"a picture " * 20)]


def draw(folder: Path, layout: str, size: int, samples: int, shards: int) -> None:
    """Write shards `web-000000.tar` …, or TFRecords."""
    folder.mkdir(parents=True)
    image = picture(size)
    for shard in range(shards):
        keys = [f"{n:09}" for n in range(shard * samples, (shard + 1) * samples)]
        if layout == "TFRecord":
            with (folder / f"web-{shard:06}.tfrecord").open("wb") as record:
                for number, key in enumerate(keys):
                    record.writelines(encode_sample(key, [("jpg", image), ("cls", number % 1000)], text="a class")[0])
            continue
        with tarfile.open(folder / f"web-{shard:06}.tar", "w") as file:
            for number, key in enumerate(keys):
                for name, data in fields_of(layout, image, number):
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))


def pattern(url: str, shards: int, layout: str = "") -> str:
    """The brace range of the shards."""
    return f"{url}/web-{{000000..{shards - 1:06}}}.{'tfrecord' if layout == 'TFRecord' else 'tar'}"


def measure_bytes(scratch: Path, latency: float, samples: int) -> None:
    """Print the share of the bytes, the requests and the seconds of each layout."""
    print(f"\n| {SHARDS} shards of {samples} images | read | bytes read | requests | an image | at once | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        for layout in ("jpg, cls", "jpg, json, txt", "TFRecord"):
            folder = scratch / f"{size} {layout}"
            draw(folder, layout, size, samples, SHARDS)
            for whole in (False, True):
                with served(folder, latency) as (url, notes):
                    begun = time.perf_counter()
                    out = scratch / f"index {size} {layout} {whole}" / "web"
                    manifest = shardkit.index_shards(pattern(url, SHARDS, layout), out=out, whole=whole)
                    seconds = time.perf_counter() - begun
                share = 100 * sum(notes.noted) / manifest.bytes
                how, each = "all" if whole else "headers", len(notes.noted) / manifest.samples
                print(
                    f"| {layout}, {name} | {how} | {share:.2f} % | {len(notes.noted):,} | {each:.2f} | "
                    f"{notes.most_at_once} | {seconds:.1f} |"
                )


def measure_one(scratch: Path, latency: float, samples: int) -> None:
    """Print what one large shard takes, with one range at a time and with several."""
    print(f"\n| one shard of {samples:,} images, 100 kB | bytes read | requests | at once | seconds |")
    print("|---|---|---|---|---|")
    for layout in ("jpg, cls", "TFRecord"):
        folder = scratch / f"one {layout}"
        draw(folder, layout, SIZES["100 kB"], samples, 1)
        for workers in (1, None):
            with served(folder, latency) as (url, notes):
                begun = time.perf_counter()
                out = scratch / f"index of one {layout} {workers}" / "web"
                source = pattern(url, 1, layout)
                manifest = shardkit.index_shards(source, out=out, workers=workers)
                seconds = time.perf_counter() - begun
            share = 100 * sum(notes.noted) / manifest.bytes
            how = "one by one" if workers else "as usual"
            print(f"| {layout}, {how} | {share:.2f} % | {len(notes.noted):,} | {notes.most_at_once} | {seconds:.1f} |")
        shutil.rmtree(folder)


OPENING = """
import sys, time
import shardkit
shardkit.dataset  # which imports what it needs
imports, begun = time.process_time(), time.perf_counter()
data = shardkit.dataset(sys.argv[1], index=sys.argv[2])
count = len(data); length, cpu = time.perf_counter() - begun, time.process_time() - imports
next(iter(data)); print(length, cpu, time.perf_counter() - begun, imports)
"""


def opened(source: str, index: str, scratch: Path) -> list[float]:
    """Of a new process: seconds to the length, of them CPU, to the first sample, and CPU seconds of imports."""
    environment = os.environ | {"XDG_CACHE_HOME": str(scratch / "cache"), "PYTHONPYCACHEPREFIX": str(scratch / "pyc")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", OPENING, source, index]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(number) for number in found.stdout.split()]


def measure_openings(scratch: Path, latency: float, shards: int, repeat: int) -> None:
    """Print the seconds to index many shards, and to open them again."""
    folder = scratch / "many"
    draw(folder, "jpg, cls", 50_000, 4, shards)
    with served(folder, latency) as (url, notes):
        source, prefix = pattern(url, shards), scratch / "indexes" / "web"
        begun = time.perf_counter()
        shardkit.index_shards(source, out=prefix)
        print(f"\nindexed {shards:,} shards in {time.perf_counter() - begun:.1f} s, {len(notes.noted):,} requests")
        begun = time.perf_counter()
        opened(source, "auto", scratch)
        print(f"opened with index='auto' for the first time: {time.perf_counter() - begun:.1f} s")
        print(f"\n| opening {shards:,} shards again | seconds to the length | CPU | to the first sample | requests |")
        print("|---|---|---|---|---|")
        for name, index in (("index=DIR", str(prefix)), ('index="auto"', "auto")):
            opened(source, index, scratch)
            notes.noted.clear()
            found = np.array([opened(source, index, scratch) for _ in range(repeat)])
            length, cpu, first, imports = np.median(found, axis=0).tolist()
            print(f"| `{name}` | {length:.2f} | {cpu:.2f} | {first:.2f} | {len(notes.noted) / repeat:,.0f} |")
        print(f"\nand before that, the imports: {imports:.2f} s of CPU")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (default: 0.03)")
    parser.add_argument("--samples", type=int, default=500, help="images of a shard (default: 500)")
    parser.add_argument("--shards", type=int, default=1024, help="shards to open again (default: 1024)")
    parser.add_argument("--repeat", type=int, default=5, help="openings (default: 5)")
    parser.add_argument("--large", type=int, default=3000, help="images of one large shard (default: 3000)")
    parser.add_argument("--only", choices=["bytes", "one", "openings"], help="a part of the measurements")
    asked = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # nothing is known from an earlier run
    print(f"{asked.latency * 1000:.0f} ms before each answer; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    parts: dict[str, Callable[[Path], None]] = {
        "bytes": lambda scratch: measure_bytes(scratch, asked.latency, asked.samples),
        "one": lambda scratch: measure_one(scratch, asked.latency, asked.large),
        "openings": lambda scratch: measure_openings(scratch, asked.latency, asked.shards, asked.repeat),
    }
    for name, measure in parts.items():
        if asked.only in (None, name):
            with tempfile.TemporaryDirectory() as scratch:
                measure(Path(scratch))
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])


if __name__ == "__main__":
    main()
