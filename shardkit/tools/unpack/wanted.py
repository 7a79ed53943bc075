"""Select samples by class and by key pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate

from shardkit.errors import UsageError
from shardkit.shards.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Wanted:
    """The samples to select: with one of these labels, and a key that matches one of these patterns; None is any."""

    labels: frozenset[int] | None
    pattern: re.Pattern[str] | None

    def __call__(self, key: str, label: int) -> bool:
        """Whether a sample is selected."""
        return (self.labels is None or label in self.labels) and (self.pattern is None or bool(self.pattern.match(key)))

    @property
    def everything(self) -> bool:
        """Whether all samples are selected."""
        return self.labels is None and self.pattern is None


def wanted(manifest: Manifest | None, classes: Sequence[str] | None, keys: Sequence[str] | None) -> Wanted:
    """Build the selection. classes: names, or class numbers without a manifest; keys: keys, or shell patterns of them.

    Raises UsageError for a class that the dataset does not have.
    """
    labels = None if classes is None else frozenset(_label(manifest, name) for name in _listed(classes))
    if keys is None:
        return Wanted(labels, None)
    return Wanted(labels, re.compile("|".join(translate(key) for key in _listed(keys)) or r"(?!)"))


def _listed(values: Sequence[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _label(manifest: Manifest | None, name: str) -> int:
    if manifest is not None and manifest.classes:
        if name in manifest.class_names:
            return manifest.class_names.index(name)
        shown = ", ".join(manifest.class_names[:10]) + (" …" if len(manifest.classes) > 10 else "")
        raise UsageError("classes", f"there is no class {name!r}", f"the classes are {shown}")
    if not name.isdecimal():
        fact = f"{name!r}: these shards have no manifest, so no class names"
        raise UsageError("classes", fact, "give class numbers, or run 'shardkit index' first")
    return int(name)
