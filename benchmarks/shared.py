"""One reader for a machine: `python benchmarks/shared.py TREE [--latency 0.03] [--repeat 5] [--kills 50] [--only …]`.

fetch     what the processes of a machine ask of a store, for ranks and for the workers of a loader: requests, and bytes
          by those of the dataset. The store is a web server on this machine with a latency
trainings four equal trainings that decode the same batches, each on its own and together, in turns: images per second
          of all of them, and the CPU seconds of all of them
kills     the process that serves is killed (SIGKILL) again and again while four read: how long no other one served,
          and whether a sample was lost or doubled

TREE is a class tree of photographs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import shardkit

SIZE, BATCH, TRAININGS, READERS = 224, 64, 4, 4


class Counting(BaseHTTPRequestHandler):
    """Files with ranges, after a latency; /counts gives what was asked for."""

    protocol_version = "HTTP/1.1"
    folder, latency = Path(), 0.0
    counts: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/counts":
            with self.lock:
                text = json.dumps(self.counts).encode()
                self.counts.clear()
            self._head(200, len(text))
            self.wfile.write(text)
            return
        time.sleep(self.latency)
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self._head(404, 0)
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, size)) if wanted else (0, size)
        self._head(206 if wanted else 200, end - start, f"bytes {start}-{end - 1}/{size}" if wanted else None)
        with self.lock:
            self.counts[self.command] += 1
            self.counts["bytes"] += end - start if self.command == "GET" else 0
        if self.command == "GET":
            with path.open("rb") as file:
                while start < end:
                    start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    do_HEAD = do_GET  # noqa: N815

    def _head(self, status: int, size: int, given: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", '"1"')
        if given:
            self.send_header("Content-Range", given)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def _serve(folder: str, latency: float, port: Any) -> None:
    handler = type("Handler", (Counting,), {"folder": Path(folder), "latency": latency})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    port.value = server.server_address[1]
    server.serve_forever()


@contextmanager
def counting_store(folder: Path, latency: float) -> Iterator[str]:
    """The URL of a store for a folder, in a process of its own."""
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=_serve, args=(str(folder), latency, port), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port.value}"
    process.terminate()
    process.join()


def counted(url: str) -> dict[str, int]:
    """What was asked for since the last call."""
    from urllib.request import urlopen

    found: dict[str, int] = json.loads(urlopen(f"{url}/counts").read())
    return {name: found.get(name, 0) for name in ("GET", "HEAD", "bytes")}


def run(program: str, count: int, **values: Any) -> list[dict[str, Any]]:
    """Run a program in processes that begin together; what each of them printed as JSON."""
    descriptor, begun = tempfile.mkstemp()
    os.close(descriptor)
    code = f"VALUES = {dict(values, count=count)!r}\n{IMPORTS}\n{START}\n{program}\n{END}"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(number), begun], stdout=subprocess.PIPE, text=True)
        for number in range(count)
    ]
    while Path(begun).stat().st_size < count:
        time.sleep(0.01)
    Path(begun).write_bytes(b"x" * 1000)
    found = [json.loads(process.communicate()[0]) for process in processes]
    os.unlink(begun)
    return found


IMPORTS = """
import json, os, resource, sys, time
import numpy as np
import PIL.Image, pyarrow.parquet
import shardkit
number, keys = int(sys.argv[1]), []
"""
START = """
with open(sys.argv[2], "ab") as file:
    file.write(b"x")
while os.stat(sys.argv[2]).st_size < 1000:
    time.sleep(0.001)
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
cpu, begun = spent(), time.perf_counter()
"""
END = """
cpu, seconds = spent() - cpu, time.perf_counter() - begun
with open(sys.argv[2], "ab") as file:
    file.write(b"x")
while os.stat(sys.argv[2]).st_size < 1000 + VALUES["count"]:  # like the ranks of a training, they end together
    time.sleep(0.001)
print(json.dumps({"keys": keys, "seconds": seconds, "cpu": cpu}))
"""

RANKS = """
data = shardkit.dataset(VALUES["url"], shuffle=VALUES["shuffle"], seed=1, shared=VALUES["shared"], rank=number,
                        world_size=VALUES["world"], remainder="uneven")
keys = [sample["__key__"] for sample in data]
"""

WORKERS = """
data = shardkit.dataset(VALUES["url"], shuffle=VALUES["shuffle"], seed=1, shared=VALUES["shared"]).batch(16)
loader = data.to_torch().loader(num_workers=VALUES["workers"])
keys = [key for batch in loader for key in batch["__key__"]]
"""


TRAINING = """
data = shardkit.dataset(VALUES["prefix"], shuffle=1000, seed=1, shared=VALUES["shared"], threads=2)
batches = data.decode(size=VALUES["size"], crop="random", flip=True).batch(VALUES["batch"])
for images, labels in batches.repeat(VALUES["epochs"]):
    keys.append(int(images[:, 100].sum()))
"""

READER = """
import threading
from shardkit.storage.node.client import open_node
node, output = open_node(VALUES["folder"], 1 << 30), open(f"{VALUES['folder']}/reader{number}", "w", 1)

def watch():
    while node._server is None:
        time.sleep(0.001)
    output.write(f"serves {time.monotonic()}\\n")

threading.Thread(target=watch, daemon=True).start()
data = shardkit.dataset(VALUES["url"], shuffle=1000, seed=1, shared=VALUES["folder"], threads=1).take(1000)
for batch in data.decode(size=64).batch(4):
    output.write(" ".join(["keys", *batch.keys]) + "\\n")
    time.sleep(0.005)
output.write("end\\n")
"""


def fetch(prefix: Path, latency: float) -> None:
    """Print what is asked of a store."""
    size = sum(path.stat().st_size for path in prefix.parent.glob("train*"))
    print(f"{'what':12} {'shuffle':>8} {'shared':>7} {'GET':>6} {'HEAD':>6} {'bytes/dataset':>14} {'seconds':>8}")
    with counting_store(prefix.parent, latency) as url:
        for what, program, count, values in [
            ("1 process", RANKS, 1, {"world": 1}),
            ("8 ranks", RANKS, 8, {"world": 8}),
            ("4 workers", WORKERS, 1, {"workers": 4}),
            ("8 workers", WORKERS, 1, {"workers": 8}),
        ]:
            for shuffle in (0, 1000):
                for shared in (False, None if "workers" in values else True):
                    found = run(program, count, url=f"{url}/train", shuffle=shuffle, shared=shared, **values)
                    asked = counted(url)
                    keys = Counter(key for one in found for key in one["keys"])
                    assert set(keys.values()) == {1}, "a sample was lost or doubled"
                    seconds = max(one["seconds"] for one in found)
                    print(
                        f"{what:12} {shuffle:8} {shared!s:>7} {asked['GET']:6} {asked['HEAD']:6} "
                        f"{asked['bytes'] / size:14.3f} {seconds:8.2f}"
                    )


def trainings(prefix: Path, repeat: int) -> None:
    """Print what four equal trainings do on their own and together."""
    print(f"{'turn':>5} {'images/s':>10} {'shared':>10} {'ratio':>6} {'CPU s':>8} {'shared':>8} {'ratio':>6}")
    ratios, epochs, values = [], 2, {"prefix": str(prefix), "size": SIZE, "batch": BATCH}
    images = shardkit.info(prefix).samples * epochs * TRAININGS
    for turn in range(repeat):
        rates, spent, sums = [], [], []
        for shared in (False, True) if turn % 2 == 0 else (True, False):
            found = run(TRAINING, TRAININGS, shared=shared, epochs=epochs, **values)
            rates.append(images / max(one["seconds"] for one in found))
            spent.append(sum(one["cpu"] for one in found))
            sums += [one["keys"] for one in found]
        assert all(one == sums[0] for one in sums), "the batches differ"
        if turn % 2:
            rates, spent = rates[::-1], spent[::-1]
        ratios.append((rates[1] / rates[0], spent[0] / spent[1]))
        print(
            f"{turn:5} {rates[0]:10.0f} {rates[1]:10.0f} {ratios[-1][0]:6.2f} "
            f"{spent[0]:8.2f} {spent[1]:8.2f} {ratios[-1][1]:6.2f}"
        )
    print(
        "median ratios: {:.2f} of the rates, {:.2f} of the CPU time".format(*(map(median, zip(*ratios, strict=True))))
    )


def kills(prefix: Path, count: int) -> None:
    """Print how long it took until another process served, and whether the last reader lost or doubled a sample."""
    url, pauses, wrong = f"slow+file://{prefix}", list[float](), 0
    data = shardkit.dataset(prefix, shuffle=1000, seed=1).take(1000)
    expected = [sample["__key__"] for sample in data]
    while len(pauses) < count:
        with tempfile.TemporaryDirectory() as folder:
            code = f"VALUES = {{'url': {url!r}, 'folder': {folder!r}}}\n{IMPORTS}\n{READER}"
            readers = {number: subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(READERS)}
            killed, begun = 0.0, False
            while True:
                told = {number: _lines(folder, number) for number in readers}
                serving = [(number, line) for number in readers for line in told[number] if line[0] == "serves"]
                begun = begun or all(len(lines) > 1 for lines in told.values())
                if not serving or not begun:
                    time.sleep(0.001)
                    continue
                number, line = serving[0]
                if killed:
                    pauses.append(float(line[1]) - killed)
                if len(readers) == 1:
                    break
                killed = time.monotonic()
                readers.pop(number).send_signal(signal.SIGKILL)
            ((number, last),) = readers.items()
            last.wait()
            lines = _lines(folder, number)
            wrong += [key for line in lines if line[0] == "keys" for key in line[1:]] != expected or lines[-1] != [
                "end"
            ]
    print(
        f"{len(pauses)} kills: another process served after {median(pauses) * 1000:.0f} ms (median), "
        f"{max(pauses) * 1000:.0f} ms (most); {wrong} epochs with a lost or doubled sample"
    )


def _lines(folder: str, number: int) -> list[list[str]]:
    path = Path(folder) / f"reader{number}"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [line.split() for line in whole.splitlines()]


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", choices=["fetch", "trainings", "kills"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        prefix = Path(work) / "train"
        shardkit.pack(chosen.tree, prefix, max_bytes="50MB")
        if chosen.only in (None, "fetch"):
            fetch(prefix, chosen.latency)
        if chosen.only in (None, "trainings"):
            trainings(prefix, chosen.repeat)
        if chosen.only in (None, "kills"):
            kills(prefix, chosen.kills)


if __name__ == "__main__":
    main()
