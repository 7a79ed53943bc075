"""Run each contestant in a process of its own, so that no library's threads, caches or allocator disturb another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from time import perf_counter, sleep
from typing import IO, Any

import memory
from harness import Case

LOOK_SECONDS = 0.05
TIMEOUT_SECONDS = 1200
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}
Answer = dict[str, Any]
Peak = tuple[int, int]  # bytes: the largest process, all processes together


class ContestantError(Exception):
    """A contestant's process ended without a result."""


def start(mode: str, name: str, case: Case, log: IO[str]) -> subprocess.Popen[str]:
    """Start the process, as the head of its own process group."""
    command = [sys.executable, str(Path(__file__).with_name("one.py")), mode, name, json.dumps(asdict(case))]
    environment = os.environ | QUIET
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill what is left of the process and its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def listen(process: subprocess.Popen[str], log: IO[str], heard: Callable[[Answer], None]) -> None:
    """Pass on each answer until the process ends."""
    assert process.stdout is not None
    timer = Timer(TIMEOUT_SECONDS, end_group, [process])
    timer.start()
    try:
        for line in process.stdout:
            heard(json.loads(line))
        code = process.wait()
    finally:
        timer.cancel()
        end_group(process)
        process.wait()
    if code:
        log.seek(0)
        lines = log.read().strip().splitlines()
        raise ContestantError(lines[-1][:90] if lines else f"exit code {code}")


def ask(mode: str, name: str, case: Case) -> Answer:
    """Run a contestant; return its last answer, with `wall_seconds` measured from before its process started."""
    last: Answer = {}

    def heard(answer: Answer) -> None:
        last.update(answer, wall_seconds=perf_counter() - began)

    with tempfile.TemporaryFile("w+", errors="replace") as log:
        began = perf_counter()
        listen(start(mode, name, case, log), log, heard)
    if not last:
        raise ContestantError("ended without an answer")
    return last


def watch(mode: str, name: str, case: Case) -> dict[int, Peak]:
    """Run a contestant; return the peak USS in each epoch that it announces."""
    peaks: dict[int, Peak] = {}
    epoch = 0
    data = (os.path.realpath(case.prepared), os.path.realpath(case.source))

    def heard(answer: Answer) -> None:
        nonlocal epoch
        epoch = answer.get("epoch", 0)

    with tempfile.TemporaryFile("w+", errors="replace") as log, ThreadPoolExecutor(1) as pool:
        process = start(mode, name, case, log)
        done = pool.submit(listen, process, log, heard)
        while not done.done():
            now = epoch
            if now:
                each = memory.look(process.pid, data)
                one, together = peaks.get(now, (0, 0))
                peaks[now] = max(one, *each), max(together, sum(each))
            sleep(LOOK_SECONDS)
        done.result()
    return peaks
