"""What a repair takes from each shard, and what it omits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shardkit.formats.tfrecord.salvage import Record
from shardkit.images.header import image_header


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sample that is not in the repaired dataset. byte: its former position, None if unknown."""

    shard: str
    byte: int | None
    key: str
    path: str
    reason: str


@dataclass(slots=True)
class Salvaged:
    """An intact sample. parts: (shard number, field, first byte, length); `cls` is in `label`.

    record: (shard number, Record) of a TFRecord sample that is written unchanged and has no parts. row: its row in the
    index of its shard, -1 for none.
    """

    key: str
    path: str
    label: int
    byte: int
    parts: list[tuple[int, str, int, int]]
    indexed: bool = False
    split: bool = False
    record: tuple[int, Record] | None = None
    row: int = -1

    @property
    def home(self) -> int:
        """The number of the shard that it was in, the first one if it was in several."""
        return self.parts[0][0] if self.record is None else self.record[0]

    @property
    def names(self) -> set[str]:
        """The sample's fields."""
        if self.record is not None:
            return set(self.record[1].fields)
        return {name for _, name, _, _ in self.parts} | ({"cls"} if self.label >= 0 else set())


@dataclass(slots=True)
class Salvage:
    """What was recovered from a shard. texts: class names found in records."""

    samples: list[Salvaged] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)


def members_of(salvages: Sequence[Salvage]) -> Iterator[Salvaged]:
    """Yield all samples in order."""
    for salvage in salvages:
        yield from salvage.samples


def field_of_image(data: bytes) -> str:
    """The field for an image whose name is lost, from its content."""
    try:
        name = image_header(data)[0].lower()
    except ValueError:  # also damaged: assume the most common format
        return "jpg"
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(name, name)
