"""Decide which sample goes to which new shard, and what happens to its fields."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.formats.format import Format
from shardkit.packing.dest.destination import Destination
from shardkit.packing.plan.plan import Plan, ShardNames, plan_shards
from shardkit.sample import IMAGE_FIELDS, field_of, path_of_text
from shardkit.shards.manifest import content_options, options_for_new_shards
from shardkit.tools.convert.rows import Stored, StoredRows
from shardkit.units import parse_bytes

LAYOUT = 2
"""Increased when the same conversion starts to give different bytes."""

DEFAULT_MAX_BYTES = "256MB"


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes to the fields: old -> new name ("": drop), and if `kept` is not empty, the only fields to keep."""

    names: Mapping[str, str]
    only: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.names or self.only)

    def of(self, fields: Sequence[str]) -> list[str]:
        """The new names of those of these fields that remain."""
        kept = [self.names.get(name, name) for name in fields if not self.only or name in self.only]
        return [name for name in kept if name]

    @property
    def keep_label(self) -> bool:
        """Whether `cls` remains unchanged."""
        return self.names.get("cls", "cls") == "cls" and (not self.only or "cls" in self.only)


def changes_of(rename: Mapping[str, str], drop: Sequence[str], fields: Sequence[str] | str | None) -> Changes:
    """Turn a user's options into changes. UsageError for contradictory ones."""
    only = fields.split(",") if isinstance(fields, str) else list(fields or ())
    if fields is not None and not [name for name in only if name.strip()]:
        raise UsageError("fields", "it names no fields", "name the fields to keep")
    for old, new in rename.items():
        if not old or not new or new == "cls" or new.startswith("__") or not new.isprintable() or set(new) & set("/,="):
            raise UsageError("rename", f"{old!r} can't become {new!r}", "give names like png=mask.png")
    if twice := set(rename) & set(drop):
        raise UsageError("rename", f"{twice.pop()!r} is also to be dropped", "either rename or drop it")
    return Changes({**rename, **dict.fromkeys(drop, "")}, tuple(name.strip() for name in only if name.strip()))


def require_fields(changes: Changes, stored: Stored) -> None:
    """UsageError naming the existing fields if the dataset lacks one of those given."""
    if not stored.fields:
        return
    unknown = [name for name in (*changes.names, *changes.only) if name not in stored.fields]
    if unknown:
        fact = f"no sample has the field {unknown[0]!r}; the samples have {', '.join(stored.fields)}"
        raise UsageError("fields", fact, "name one of these")
    left = changes.of([name for name in stored.fields if name not in IMAGE_FIELDS])
    images = changes.of([name for name in stored.fields if name in IMAGE_FIELDS])
    # a sample with two images that get the same name is refused when it is read; most have one, as JPEG or PNG
    if not [*left, *images] or len({*left, *images}) < len([*left, *set(images)]):
        raise UsageError("fields", "no field is left, or two fields get the same name", "name others")


Limits = tuple[int | str | None, int | None, bool, int]
"""max_bytes, max_count, shuffle, seed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each sample goes. plan: the rows of each shard; None if each shard becomes one. digest: of everything."""

    plan: Plan | None
    options: dict[str, Any]
    digest: str
    same: bool
    """Whether the manifest describes the content as the source's does."""


def layout_of(
    stored: Stored, form: Format, changes: Changes, destination: Destination, limits: Limits | None
) -> Layout:
    """Plan the layout of the new shards. limits: None if each shard becomes one. UsageError for impossible limits."""
    base = options_for_new_shards(stored.manifest, appended=limits is None)
    if stored.packed and limits is not None:
        fact = "compressed shards can only be read from front to back, so they can't be split differently or shuffled"
        raise UsageError(str(stored.shards[0]), fact, "convert them as they are first, and then the result")
    same = limits is None and not changes and stored.manifest is not None and bool(stored.manifest.plan)
    if same:
        assert stored.manifest is not None
        return Layout(None, base, stored.manifest.plan, same)
    plan = None
    if limits is not None:
        max_bytes, max_count, shuffle, seed = limits
        size = parse_bytes(DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)
        base |= {"max_bytes": size, "max_count": max_count, "shuffle": shuffle, "seed": seed}
        plan = plan_shards(
            _sample_bytes(stored, form, changes), ShardNames(destination.base, form.suffix), overhead=len(form.end),
            max_bytes=size, max_count=max_count, shuffle=shuffle, seed=seed,
        )  # fmt: skip
    if stored.classes and (stored.manifest is None or not stored.manifest.plan):
        base |= content_options(labels="listed")  # paths need not begin with the class, unlike those of `pack`
    if not stored.plain or changes:
        base |= content_options(fields=sorted(set(changes.of(stored.fields))))
    return Layout(plan, base, _digest(stored, form, changes, destination, limits), same)


def _digest(stored: Stored, form: Format, changes: Changes, destination: Destination, limits: Limits | None) -> str:
    what = (LAYOUT, form.name, sorted(changes.names.items()), changes.only, destination.stem, limits, stored.classes)
    digest = hashlib.blake2b(repr(what).encode(), digest_size=16)
    if stored.corrections:
        digest.update(stored.corrections.encode())
    for number, shard in enumerate(stored.shards):
        entry = None if stored.manifest is None else stored.manifest.shards[number]
        known: object = (entry.bytes, entry.crc32c) if entry is not None else None
        if stored.files and stored.files[number].crc32c < 0:  # elsewhere: no checksum, but a version
            known = (stored.files[number].bytes, stored.files[number].version)
        elif known is None:
            known = stored.files[number].bytes if stored.is_far else os.path.getsize(shard.path)
        digest.update(repr((shard.name, known)).encode())
    return digest.hexdigest()


def _sample_bytes(stored: Stored, form: Format, changes: Changes) -> NDArray[np.int64]:
    """The bytes of each sample in its new shard (int64): exact for images with labels, an upper bound for others."""
    texts = [entry.name for entry in stored.classes]
    longest = max((len(text.encode()) for text in texts), default=0)
    parts = [np.empty(0, np.int64)]
    for number in range(len(stored.shards)):
        rows = stored.rows(number)
        if stored.plain and not changes:
            parts.append(_exact_bytes(rows, form, texts))
        elif form.name == stored.format and not changes:
            parts.append(rows.sizes + _key_bytes(stored, form, rows))
            for row, (_, data) in rows.corrected.items():
                parts[-1][row] += form.most_added_bytes(np.zeros(1, np.int64), 1)[0] + len(data) + longest
        else:
            names = np.array([len(k.encode("utf-8", "surrogateescape")) for k in rows.keys], np.int64)
            names += np.array([len(path.encode()) for path in rows.paths], np.int64)
            many = len(stored.fields) + 4
            grown = sum(len(name) for name in changes.of(stored.fields))
            parts.append(rows.sizes + form.most_added_bytes(names, many) + longest + grown)
    return np.concatenate(parts)


def _key_bytes(stored: Stored, form: Format, rows: StoredRows) -> NDArray[np.int64]:
    """The most bytes that a key made from a record's position adds when it is written into the record."""
    if stored.manifest is not None and stored.manifest.plan:
        return np.zeros(len(rows.keys), np.int64)
    return form.most_key_bytes(rows.keys)


def _exact_bytes(rows: StoredRows, form: Format, texts: Sequence[str]) -> NDArray[np.int64]:
    columns = zip(rows.keys, rows.paths, rows.labels.tolist(), rows.image_sizes.tolist(), strict=True)
    found = [
        form.size(
            key, ((field_of(path.rpartition(".")[2]), size), ("cls", len(str(label)))), path_of_text(path),
            texts[label], label,
        )
        for key, path, label, size in columns
    ]  # fmt: skip
    return np.array(found, np.int64)
