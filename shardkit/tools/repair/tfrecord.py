"""Which samples of a TFRecord shard are whole, and why the others are not.

A record whose two checksums are right is taken over as it is. Of a damaged one, an index saves the image.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardkit.checksums import crc32c
from shardkit.formats.tfrecord.salvage import Record, Records, salvage_records
from shardkit.images.header import check_image, image_header
from shardkit.sample import BAD_LABEL, IMAGE_FIELDS
from shardkit.shards.manifest import Manifest
from shardkit.shards.open import IndexRows
from shardkit.shards.scan import ShardBytes
from shardkit.tools.repair.rescued import LeftOut, Rescue, Rescued, field_of_image


@dataclass(frozen=True, slots=True)
class RecordRescuer:
    """Rescues one shard, of this number, into `rescue`."""

    manifest: Manifest | None
    decode: bool
    number: int
    data: ShardBytes
    rescue: Rescue

    def take(self, rows: IndexRows | None) -> None:
        """All that is whole: by the index rows, or as far as can be known without."""
        found = salvage_records(self.data)
        self.rescue.notes += [str(gap.error) for gap in found.gaps]
        for record in found.sound:
            if record.text and record.label >= 0:
                self.rescue.texts.setdefault(record.label, record.text)
        known = set() if rows is None else self._by_rows(rows, found)
        extra = [record for record in found.sound if record.key not in known]
        with_image = 2 * sum(record.image != "" for record in found.sound) > len(found.sound)
        for record in extra:
            self._keep(record, self._why_not(record, with_image), None)
        if rows is None:
            self._list_gaps(found)

    def _by_rows(self, rows: IndexRows, found: Records) -> set[str]:
        """Take what the index names; the keys that it names."""
        sound: dict[str, list[Record]] = {}
        for record in found.sound:
            sound.setdefault(record.key, []).append(record)
        columns = [rows.numbers[name].tolist() for name in ("label", "offset", "image_offset", "image_size", "crc32c")]
        for key, path, label, offset, start, size, crc in zip(rows.keys, rows.paths, *columns, strict=True):
            same = sound.get(key, [])
            found_one = next((one for one in same if self._has_image(one, start, size, crc)), None)
            if found_one is not None:
                why_not = self._bad_label(found_one) or self._bad_image(found_one.image_offset, found_one.image_size)
                self._keep(found_one, why_not, label)
                continue
            image, why = self._image_alone(start, size, crc, has_record=bool(same))
            if why:
                self.rescue.left_out.append(LeftOut(self.data.place, offset, key, path, why))
            else:
                parts = [(self.number, image, start, size)]
                self.rescue.samples.append(Rescued(key, path, label, offset, parts, indexed=True))
        return set(rows.keys)

    def _has_image(self, record: Record, start: int, size: int, crc: int) -> bool:
        """Whether the record holds the image that the index describes, or none where it says none."""
        if start < 0:
            return not record.image
        return record.image_size == size and self._crc(record.image_offset, size) == crc

    def _image_alone(self, start: int, size: int, crc: int, *, has_record: bool) -> tuple[str, str]:
        """(the field of the image whose bytes are whole at their place; why it is not enough)."""
        if start < 0 or start + size > len(self.data) or self._crc(start, size) != crc:
            return "", "it has another image than the index says" if has_record else "its record is damaged, or gone"
        names = [] if self.manifest is None else [name for name in self.manifest.fields if name != "cls"]
        if self.manifest is None or any(name not in IMAGE_FIELDS for name in names):
            return "", "its record is damaged, and with it fields that the index does not know"
        name = names[0] if len(names) == 1 else field_of_image(self._image(start, size))
        return name, self._bad_image(start, size)

    def _keep(self, record: Record, why_not: str, label: int | None) -> None:
        """Take a record over, or list it. label: the index's, for a record without one; None without an index."""
        if why_not:
            self.rescue.left_out.append(LeftOut(self.data.place, record.offset, record.key, record.path, why_not))
            return
        own = record.label if label is None or "cls" in record.fields else label
        sample = Rescued(record.key, record.path, own, record.offset, [], label is not None)
        sample.record = self.number, record
        self.rescue.samples.append(sample)

    def _why_not(self, record: Record, with_image: bool) -> str:
        """Why a record that no index vouches for is left out; "" if it is not."""
        if reason := self._bad_label(record):
            return reason
        if not record.image:
            return "it has no image, and the others have one" if with_image else ""
        look = check_image if self.decode else image_header
        try:
            look(self._image(record.image_offset, record.image_size))
        except ValueError as exc:
            return f"{record.image}: {exc}"
        return ""

    def _bad_label(self, record: Record) -> str:
        classes = self.manifest.classes if self.manifest is not None else ()
        bad = record.label == BAD_LABEL or (classes and record.label >= len(classes))
        return "its label is not a class number of this dataset" if bad else ""

    def _bad_image(self, start: int, size: int) -> str:
        """With `decode`, why an image can't be decoded."""
        if not self.decode or start < 0:
            return ""
        try:
            check_image(self._image(start, size))
        except ValueError as exc:
            return str(exc)
        return ""

    def _list_gaps(self, found: Records) -> None:
        for gap in found.gaps:
            where = f"{gap.error.fact}; the next sound record is at byte {gap.end}"
            fact = gap.error.fact if gap.end >= len(self.data) else where
            self.rescue.left_out.append(LeftOut(self.data.place, gap.start, gap.key or "(not known)", gap.path, fact))

    def _image(self, start: int, size: int) -> bytes:
        return bytes(self.data.buffer[start : start + size])

    def _crc(self, start: int, size: int) -> int:
        return int(crc32c(self.data.view[start : start + size]))
