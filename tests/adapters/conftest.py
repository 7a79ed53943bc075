"""Order of the tests: a process in which TensorFlow runs threads can't be forked any more."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that fork workers for torch come first."""
    items.sort(key=lambda item: not (item.path.name.startswith("test_torch") or item.path.parent.name == "torch"))
