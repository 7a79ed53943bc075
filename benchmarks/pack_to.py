"""Training while packing: `python benchmarks/pack_to.py TREE SCRATCH [--size 224] [--rounds 9] [--kills 50] …`.

speed   one epoch over the tree, the first epoch with `pack_to`, and one over the shards that it left, in turns: images
        per second and CPU seconds, with the ratio of the first two within a round. Scanning the tree is included in
        both, and the commit of the dataset in the first epoch; imports are not (the first round is not counted).
        --size 0: samples that are not decoded
slow    the same for a tree whose files each take --latency to open (the opening is delayed by a preloaded library, if
        there is a C compiler), as on a network file system
kills   the first epoch is killed (SIGKILL) at random moments, and then run to its end: whether the shards are those of
        `pack`, and no finished one was written again

Every packing is compared with `pack`'s own files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import shardkit

SLOW_OPEN = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static void late(const char *path) {
    const char *end = strrchr(path, '.');
    if (end && !strcmp(end, ".jpg")) {
        struct timespec t = {0, (long)(atof(getenv("SLOW_OPEN")) * 1e9)};
        nanosleep(&t, NULL);
    }
}
#define OPENED(name, first, given)                                                  \
    int name(first const char *path, int flags, ...) {                              \
        va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
        late(path);                                                                 \
        int (*real)(first const char *, int, ...) = dlsym(RTLD_NEXT, #name);        \
        return real(given path, flags, mode);                                       \
    }
#define COMMA ,
OPENED(open, , )
OPENED(open64, , )
OPENED(openat, int folder COMMA, folder COMMA)
OPENED(openat64, int folder COMMA, folder COMMA)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", choices=["tree", "first", "shards"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    work = asked.scratch / "pack_to-benchmark"
    if asked.one:
        print(*epoch(asked, asked.one, work))
        return
    if "SLOW_OPEN" not in os.environ:  # else the library in it is in use
        shutil.rmtree(work, ignore_errors=True)
    shardkit.pack(asked.tree, work / "reference" / "train")
    if asked.kills:
        kills(asked, work)
    else:
        speed(asked, work)
    shutil.rmtree(work, ignore_errors=True)


def opened(asked: argparse.Namespace, what: str, work: Path) -> shardkit.Dataset[Any]:
    source = work / "shards" / "train" if what == "shards" else asked.tree
    pack_to = work / "shards" / "train" if what == "first" else None
    data = shardkit.dataset(source, pack_to=pack_to, shuffle=True)
    if not asked.size:
        return data
    small = asked.size < 64
    return data.decode(size=asked.size, crop="resize" if small else "random").batch(256 if small else 64)


def epoch(asked: argparse.Namespace, what: str, work: Path) -> tuple[float, float]:
    """(seconds, CPU seconds) of an epoch."""
    begun, before = time.perf_counter(), cpu_seconds()
    for _ in opened(asked, what, work):
        pass
    return time.perf_counter() - begun, cpu_seconds() - before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def speed(asked: argparse.Namespace, work: Path) -> None:
    if asked.latency and "SLOW_OPEN" not in os.environ:
        slow = {"LD_PRELOAD": str(slow_library(work)), "SLOW_OPEN": str(asked.latency)}
        subprocess.run([sys.executable, *sys.argv], env=os.environ | slow, check=True)
        return
    names = ("tree", "first", "shards")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(asked.rounds + 1):
        shutil.rmtree(work / "shards", ignore_errors=True)
        for name in names:
            measured = epoch(asked, name, work)
            if turn:
                found[name].append(measured)
        require_same(work / "shards", work / "reference")
    samples = len(shardkit.dataset(work / "reference" / "train"))
    for name in names:
        seconds, cpu = (median(values) for values in zip(*found[name], strict=True))
        print(f"{name:8s} {samples / seconds:10,.0f} images/s   {cpu:6.2f} s of CPU")
    for which, name in enumerate(("wall", "CPU")):
        ratios = sorted(a[which] / b[which] for a, b in zip(found["tree"], found["first"], strict=True))
        print(f"first epoch : tree, {name}: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def slow_library(work: Path) -> Path:
    source, library = work / "slow.c", work / "slow.so"
    source.write_text(SLOW_OPEN)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def kills(asked: argparse.Namespace, work: Path) -> None:
    chance, lost, kept_before, folder = random.Random(asked.seed), 0, 0, work / "shards"
    program = [sys.executable, __file__, str(asked.tree), str(asked.scratch), "--size", str(asked.size)]
    whole = time.perf_counter()
    subprocess.run([*program, "--one", "first"], check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - whole
    for _ in range(asked.kills):
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(chance.choice((1, 1, 2))):
            running = subprocess.Popen([*program, "--one", "first"], stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.2, 1.1) * whole)
            running.kill()
            running.wait()
        kept = finished(folder)
        kept_before += len(kept)
        subprocess.run([*program, "--one", "first"], check=True, stdout=subprocess.DEVNULL)
        require_same(folder, work / "reference")
        lost += sum((folder / name).stat().st_ino != number for name, number in kept.items())
    print(f"{asked.kills} kills: all files equal to those of pack; {kept_before} shards were finished, {lost} lost")


def finished(folder: Path) -> dict[str, int]:
    """The finished shards, each with its inode, wherever they are."""
    found = {}
    for place in (folder / ".train.packing", folder):
        for path in place.glob("*.tar"):
            if place == folder or path.with_name(f"{path.name}.receipt").exists():
                found[path.name] = path.stat().st_ino
    return found


def require_same(folder: Path, reference: Path) -> None:
    assert sums(folder) == sums(reference), f"{folder} differs from {reference}"


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    main()
