"""Reading from a store: `python benchmarks/remote.py PREFIX TREE [--latency 0.03] [--bandwidth 100MB] [--repeat 5]`.

slow      a store with a latency for each request, and a bandwidth that all requests share (shardkit's SlowStore,
          around the local files): shards streamed in order, shuffled, with an empty cache and from a full one; and
          the images of the class tree one by one, by one reader and by 32. Whole epochs, including opening.
loopback  nginx on this machine, without a latency: shards streamed, and a bare loop of parallel range requests by
          obstore (4 MiB, as many at a time), which does not look at the data; and the same loop with the minimum
          that any reader needs, a `bytes` of the data and its CRC-32C. 16 epochs each; they take turns.

MB/s are 10⁶ bytes of shards per second, for the tree of its files. CPU is that of this process, in seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import shardkit
from shardkit.location import locate
from shardkit.reading.blocks.fetch_ahead import CHUNK_BYTES
from shardkit.storage.fetchers import REQUESTS
from shardkit.storage.store import open_store
from shardkit.units import parse_bytes

NGINX = """worker_processes 2; daemon off; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {work}/a; proxy_temp_path {work}/b;
fastcgi_temp_path {work}/c; uwsgi_temp_path {work}/d; scgi_temp_path {work}/e;
server {{ listen 127.0.0.1:{port}; root "{root}"; }} }}
"""


EPOCHS = 16
"""Of the loopback, so that opening is little of it."""


Run = Callable[[], tuple[int, int]]
"""What is measured; gives (bytes, images), 0 images where they are not known."""


def streamed(url: str, size: int, shuffle: int, *, epochs: int = 1, **options: object) -> Run:
    """Stream epochs of undecoded samples from shards of `size` bytes."""

    def run() -> tuple[int, int]:
        samples = shardkit.dataset(url, shuffle=shuffle, **options).repeat(epochs)  # type: ignore[arg-type]
        return size * epochs, sum(1 for sample in samples if len(sample["jpg"]))

    return run


def tree_read(url: str, paths: list[str], readers: int, options: dict[str, object]) -> Run:
    """Read objects of a class tree, each with its own request."""
    store = open_store(locate(url), options)

    def one(path: str) -> int:
        return sum(len(piece) for piece in store.pieces(path))  # type: ignore[arg-type]

    def run() -> tuple[int, int]:
        with ThreadPoolExecutor(readers) as pool:
            return sum(pool.map(one, paths)), len(paths)

    return run


def bare(url: str, sizes: dict[str, int], requests: int, *, summed: bool = False) -> Run:
    """Fetch ranges of the shards with obstore alone; `summed`: as bytes with their CRC-32C."""
    import google_crc32c
    import obstore
    from obstore.store import HTTPStore

    store = HTTPStore(url, client_options={"allow_http": True})
    spans = [(n, at, min(at + CHUNK_BYTES, size)) for n, size in sizes.items() for at in range(0, size, CHUNK_BYTES)]

    def one(span: tuple[str, int, int]) -> int:
        data = obstore.get_range(store, span[0], start=span[1], end=span[2])
        if summed:
            google_crc32c.value(bytes(data))
        return len(data)

    def run() -> tuple[int, int]:
        with ThreadPoolExecutor(requests) as pool:
            return sum(pool.map(one, spans * EPOCHS)), 0

    return run


@contextlib.contextmanager
def nginx(root: Path, work: Path) -> Iterator[str]:
    """Run a web server for the files in `root`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (work / "nginx.conf").write_text(NGINX.format(work=work, port=port, root=root), "utf-8")
    command = ["nginx", "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                time.sleep(0.05)
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


Measure = tuple[float, float, float]


def measured(run: Run) -> Measure:
    """(MB/s, images/s, CPU seconds) of one run."""
    begun, cpu = time.perf_counter(), time.process_time()
    size, images = run()
    seconds = time.perf_counter() - begun
    return size / 1e6 / seconds, images / seconds, time.process_time() - cpu


def contest(runs: dict[str, Run], repeat: int) -> dict[str, list[Measure]]:
    """Run each in turn, A B C A B C …"""
    found: dict[str, list[Measure]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            found[name].append(measured(run))
    return found


def table(found: dict[str, list[Measure]], against: str, limit: float = 0.0) -> None:
    """Print the medians, and the median of the ratios within a round; with a limit, the ratio to that."""
    print(f"{'':42} {'MB/s':>8} {'least':>8} {'most':>8} {'images/s':>9} {'CPU s':>6} {'ratio':>6}")
    for name, values in found.items():
        rates, images, cpu = zip(*values, strict=True)
        others = [limit] * len(rates) if limit else [value[0] for value in found[against]]
        ratio = median(rate / other for rate, other in zip(rates, others, strict=True))
        spread = f"{median(rates):8.1f} {min(rates):8.1f} {max(rates):8.1f}"
        print(f"{name:42} {spread} {median(images) or float('nan'):9.0f} {median(cpu):6.2f} {ratio:6.2f}")


def sizes_of(prefix: Path) -> dict[str, int]:
    """The size of each shard in bytes."""
    return {path.name: path.stat().st_size for path in sorted(prefix.parent.glob(f"{prefix.name}-*.t*"))}


def slow(prefix: Path, tree: Path, options: argparse.Namespace, work: Path) -> None:
    limit = parse_bytes(options.bandwidth)
    slowness: dict[str, object] = {"latency_seconds": options.latency, "bytes_per_second": float(limit)}
    url, size = f"slow+file://{prefix}", sum(sizes_of(prefix).values())
    every = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.*") if path.is_file())
    few, many = every[:: max(1, len(every) // 100)], every[:: max(1, len(every) // 3000)]

    caches: list[Path] = []

    def cached() -> tuple[int, int]:
        for path in caches[-1:]:
            shutil.rmtree(path)
        caches.append(work / f"cache-{len(caches)}")
        return full()

    def full() -> tuple[int, int]:
        return streamed(url, size, 10_000, storage_options=slowness, cache=caches[-1])()

    runs = {
        "shardkit, in order": streamed(url, size, 0, storage_options=slowness),
        "shardkit, shuffle 10,000": streamed(url, size, 10_000, storage_options=slowness),
        "shardkit, shuffle 10,000, empty cache": cached,
        "shardkit, shuffle 10,000, full cache": full,
        f"class tree, 1 reader ({len(few)} images)": tree_read(f"slow+file://{tree}", few, 1, slowness),
        f"class tree, 32 readers ({len(many)} images)": tree_read(f"slow+file://{tree}", many, 32, slowness),
    }
    print(f"\n{options.latency * 1000:.0f} ms, {options.bandwidth}/s; ratio to that bandwidth")
    table(contest(runs, options.repeat), "", limit / 1e6)


def loopback(prefix: Path, options: argparse.Namespace, work: Path) -> None:
    sizes = sizes_of(prefix)
    size = sum(sizes.values())
    with nginx(prefix.parent, work) as url:
        runs = {
            f"obstore, {REQUESTS} requests of 4 MiB": bare(url, sizes, REQUESTS),
            "obstore, as bytes with CRC-32C": bare(url, sizes, REQUESTS, summed=True),
            "shardkit, in order": streamed(f"{url}/{prefix.name}", size, 0, epochs=EPOCHS),
            "shardkit, shuffle 300": streamed(f"{url}/{prefix.name}", size, 300, epochs=EPOCHS),
        }
        print(f"\nloopback, nginx; ratio to obstore alone; {os.cpu_count()} cores for both sides")
        contest(runs, 1)
        table(contest(runs, options.repeat), next(iter(runs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--bandwidth", default="100MB")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    prefix, tree = options.prefix.absolute(), options.tree.absolute()
    with tempfile.TemporaryDirectory() as folder:
        next(iter(shardkit.dataset(str(prefix))))  # imports
        slow(prefix, tree, options, Path(folder))
        if shutil.which("nginx"):
            loopback(prefix, options, Path(folder))


if __name__ == "__main__":
    main()
