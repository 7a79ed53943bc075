"""Memory of batches that is lent out again: aligned, and never while somebody still sees it."""

from __future__ import annotations

import gc
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shardkit
from shardkit.reading.batches.memory import ALIGNMENT, BufferPool


def address(array: Any) -> int:
    found: int = array.ctypes.data
    return found


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_arrays_are_aligned_writable_and_of_the_shape_asked_for(dtype: str) -> None:
    lender = BufferPool(4)
    for shape in ((3, 5, 7), (2, 5, 7), (1,)):
        array = lender.empty(shape, dtype)
        array[...] = 1
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert address(array) % ALIGNMENT == 0 and array.flags.c_contiguous and array.flags.writeable


def test_memory_is_lent_again_when_the_last_array_over_it_is_gone() -> None:
    lender = BufferPool(4)
    first = lender.empty((100, 100), "uint8")
    place, view = address(first), first[10:20, ::2].reshape(-1).view("uint8")
    del first
    gc.collect()
    other = lender.empty((100, 100), "uint8")
    assert address(other) != place
    del view
    gc.collect()
    assert address(lender.empty((50, 100), "uint8")) == place


def test_no_more_waits_than_was_said() -> None:
    lender = BufferPool(2)
    arrays = [lender.empty((1000,), "uint8") for _ in range(5)]
    del arrays
    gc.collect()
    assert len(lender._waiting) == 2


def test_memory_that_is_too_small_is_replaced() -> None:
    lender = BufferPool(2)
    lender.empty((10,), "uint8")  # and gone again
    assert len(lender._waiting) == 1
    assert lender.empty((10_000,), "float32").nbytes == 40_000


def test_batches_that_are_kept_keep_their_images(tree: Path) -> None:
    data = shardkit.dataset(tree).decode(size=8).batch(2)
    copies = [batch.images.copy() for batch in data]
    kept = list(data.repeat(3))
    for number, batch in enumerate(kept):
        np.testing.assert_array_equal(batch.images, copies[number % len(copies)])
    views = [batch.images[0] for batch in data]
    for view, images in zip(views, copies, strict=True):
        np.testing.assert_array_equal(view, images[0])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not touched")
def test_freed_memory_is_kept_for_what_is_allocated_next(run_python: Any, tmp_path: Path) -> None:
    # each block is larger than those before, so that glibc has no reason of its own to keep it
    code = (
        "import resource, sys\nfrom shardkit.reading.batches.memory import keep_freed_memory\n"
        "if sys.argv[1:]:\n    keep_freed_memory()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for more in range(20):\n    b'x' * int((8 + more / 4) * 2**20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    fresh, kept = (int(run_python("-c", code, *more, cwd=tmp_path).stdout) for more in ((), ("keep",)))
    assert 0 < kept < fresh / 4
