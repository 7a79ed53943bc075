"""Several catalogs as one: the rows of the first, then those of the second, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shardkit.errors import UsageError
from shardkit.reading.batches.labels import FIELD, Kind, relabel_field
from shardkit.reading.blocks.block import Block, Catalog, Images, Labels, Rows, Wanted, images_of
from shardkit.reading.order.groups import pieces
from shardkit.sample import AnySample
from shardkit.shards.buffers import ShardFile
from shardkit.shards.columns.arrays import Values, gathered, nothing
from shardkit.shards.columns.ranges import Holds, Ranges
from shardkit.shards.columns.types import PREFIX, Types, fields_of, joined_types, types_in
from shardkit.shards.columns.values import completed_table
from shardkit.shards.index import as_numpy
from shardkit.shards.manifest import ClassEntry, Manifest
from shardkit.threads import cached_property

if TYPE_CHECKING:
    import pyarrow as pa

    from shardkit.reading.blocks.fetched import FetchedBytes


class CombinedCatalog:
    """The samples of several catalogs. Classes with the same name are one class; labels are those of the first catalog,
    followed by classes that only later ones have."""

    manifest: Manifest | None = None

    def __init__(self, parts: Sequence[Catalog]) -> None:
        self.parts = parts
        self.counts = np.concatenate([part.counts for part in parts])
        names = list(dict.fromkeys(entry.name for part in parts for entry in part.classes))
        totals = dict.fromkeys(names, 0)
        for part in parts:
            for entry in part.classes:
                totals[entry.name] += entry.count
        self.classes = tuple(ClassEntry(name, totals[name]) for name in names)
        self.fields = tuple(sorted({field for part in parts for field in part.fields}))
        self.plain = all(part.plain for part in parts)
        self.identity = "+".join(part.identity for part in parts)
        self.prefetch = max((part.prefetch for part in parts), key=lambda prefetch: prefetch.strength)
        samples = [int(part.counts.sum()) for part in parts]
        self.starts = np.concatenate([[0], np.cumsum(samples)])
        total = sum(part.mean_bytes * count for part, count in zip(parts, samples, strict=True))
        self.mean_bytes = max(1, total // max(1, sum(samples)))
        # The last entry stands for -1, no label.
        self.relabel = [np.array([*(names.index(e.name) for e in part.classes), -1]) for part in parts]
        self._labels: Labels | None = None
        self.first_files = np.cumsum([0, *(len(part.files()) for part in parts)])

    @property
    def kind(self) -> Kind:
        """The kind of the labels. UsageError if the parts are of several kinds."""
        kinds = {part.kind for part in self.parts}
        if len(kinds) > 1:
            fact = "some of these datasets have one class per sample, others have several classes, or numbers"
            raise UsageError("concat(), mix()", fact, "combine datasets of one kind")
        return kinds.pop()

    @property
    def one_image_each(self) -> bool:
        """Whether all parts have one image per sample."""
        return all(part.one_image_each for part in self.parts)

    def files(self) -> Sequence[ShardFile]:
        """The shards of all parts."""
        return [file for part in self.parts for file in part.files()]

    def hold(self) -> None:
        """Keep the files of all parts."""
        for part in self.parts:
            part.hold()

    def labels(self) -> Labels:
        """The labels of all rows."""
        if self._labels is None:
            kind = np.min_scalar_type(-max(1, len(self.classes)))
            found, at = np.empty(int(self.starts[-1]), kind), 0
            for part, relabel in zip(self.parts, self.relabel, strict=True):
                labels, narrow = part.labels(), relabel.astype(kind)
                for low, high in pieces(len(labels)):
                    found[at : at + high - low] = narrow[labels[low:high]]
                    at += high - low
            self._labels = found
        return self._labels

    def index_schema(self) -> pa.Schema:
        """The columns that any part has. UsageError for a further column of several types."""
        import pyarrow as pa

        schemas = [part.index_schema() for part in self.parts]
        try:
            types = joined_types([types_in(schema) for schema in schemas])
        except ValueError as exc:
            cure = "pack them again with values of one type"
            raise UsageError("concat(), mix()", str(exc), cure) from exc
        own = [pa.schema([field for field in schema if not field.name.startswith(PREFIX)]) for schema in schemas]
        return pa.schema([*pa.unify_schemas(own, promote_options="permissive"), *fields_of(types)])

    def index_tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The indexes of all parts in turn, with the labels of the whole. A column that a part lacks is null there."""
        schema = self.index_schema()
        wanted = schema.names if names is None else names
        for number, part in enumerate(self.parts):
            own = part.index_schema().names
            for table in part.index_tables([name for name in wanted if name in own] or ["label"]):
                yield self._of_whole(number, table, wanted, schema)

    def candidates(self, names: Sequence[str], holds: Holds) -> Iterator[tuple[Rows, pa.Table]]:
        """As of each part in turn. Labels rule nothing out: those of a part are not those of the whole."""

        def of_part(groups: Sequence[Ranges]) -> Sequence[bool]:
            return holds([{name: of for name, of in ranges.items() if name != "label"} for ranges in groups])

        schema = self.index_schema()
        for number, part in enumerate(self.parts):
            own = part.index_schema().names
            for rows, table in part.candidates([name for name in names if name in own] or ["label"], of_part):
                yield rows + self.starts[number], self._of_whole(number, table, names, schema)

    def _of_whole(self, part: int, table: pa.Table, names: Sequence[str], schema: pa.Schema) -> pa.Table:
        """Columns of a part as those of the whole."""
        import pyarrow as pa

        own = table.column_names
        columns = {
            name: table[name] if name in own else pa.nulls(len(table), schema.field(name).type) for name in names
        }
        if "label" in names:
            columns["label"] = pa.chunked_array([self.relabel[part][as_numpy(table["label"])]])
        return completed_table(pa.table(columns), names, types_in(schema))

    def further(self, rows: Rows, types: Types) -> dict[str, Values]:
        """The values of some rows in further columns, null in a part that has no such column."""
        member = np.searchsorted(self.starts, rows, side="right") - 1
        used, slots = np.unique(member, return_inverse=True)
        local, several = np.empty(len(rows), np.int64), dict[str, list[Values]]()
        for part in used.tolist():
            where = np.flatnonzero(member == part)
            local[where] = np.arange(len(where))
            own = types_in(self.parts[part].index_schema())
            mine = {name: text for name, text in types.items() if name in own}
            found = self.parts[part].further(rows[where] - self.starts[part], mine)
            for name, text in types.items():
                several.setdefault(name, []).append(found.get(name) or nothing(len(where), text))
        return {name: gathered(several[name], slots, local, text) for name, text in types.items()}

    def rows_of(self, key: str) -> list[int]:
        """The rows of all samples with this key."""
        parts = zip(self.parts, self.starts[:-1].tolist(), strict=True)
        return [int(start + row) for part, start in parts for row in part.rows_of(key)]

    def block(self, rows: Rows) -> CombinedBlock:
        """The samples at these rows."""
        return CombinedBlock(self, rows)


class CombinedBlock:
    """Samples of several catalogs: a block of each, and the block of each number."""

    def __init__(self, catalog: CombinedCatalog, rows: Rows) -> None:
        self.rows = rows
        member = np.searchsorted(catalog.starts, rows, side="right") - 1
        self.parts: dict[int, Block] = {}
        self.labels = np.empty(len(rows), np.int64)
        within = np.empty(len(rows), np.int64)
        for part in np.unique(member).tolist():
            where = member == part
            block = catalog.parts[part].block(rows[where] - catalog.starts[part])
            self.parts[part] = block
            within[where] = np.arange(len(block))
            self.labels[where] = catalog.relabel[part][block.labels]
        self._several, self._relabel = catalog.kind == "multi", catalog.relabel
        self._where = list(zip(member.tolist(), within.tolist(), strict=True))
        self._first_files = catalog.first_files

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def arriving(self) -> Sequence[FetchedBytes]:
        """The bytes of all parts to fetch ahead of use."""
        return [held for block in self.parts.values() for held in block.arriving]

    @property
    def nbytes(self) -> int:
        """The bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    def wanted(self) -> Wanted | None:
        """Where the bytes of the samples of all parts are."""
        found = []
        for part, block in self.parts.items():
            wanted = block.wanted()
            if wanted is not None:
                found.append((wanted[0] + self._first_files[part], *wanted[1:]))
        if not found:
            return None
        shards, firsts, stops = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return shards, firsts, stops

    def _at(self, number: int) -> tuple[Block, int]:
        part, within = self._where[number]
        return self.parts[part], within

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys."""
        return [self.parts[part].keys[within] for part, within in self._where]

    @cached_property
    def fields(self) -> list[str]:
        """The name of each sample's image field."""
        return [self.parts[part].fields[within] for part, within in self._where]

    def image(self, number: int) -> Any:
        """The bytes of an image."""
        block, within = self._at(number)
        return block.image(within)

    def target(self, number: int) -> bytes | None:
        """The bytes of the field with a label of several classes, or numbers; classes by their numbers in the whole."""
        block, within = self._at(number)
        data = block.target(within)
        return (
            relabel_field(data, self._relabel[self._where[number][0]]) if self._several and data is not None else data
        )

    def unchecked(self, begin: int, end: int) -> None:
        """None: the parts check theirs."""
        return

    def shapes(self, begin: int, end: int) -> NDArray[np.int32]:
        """(height, width) of the images of some samples; 0 where it is not known."""
        shapes = np.zeros((end - begin, 2), np.int32)
        for at, number in enumerate(range(begin, end)):
            block, within = self._at(number)
            found = block.shapes(within, within + 1)
            if found is not None:
                shapes[at] = found[0]
        return shapes

    def images(self, begin: int, end: int) -> Images:
        """As `image` for each."""
        return images_of(self, begin, end)

    def seek_points(self, begin: int, end: int) -> Sequence[bytes | None]:
        """Those of each sample, if it has any."""
        found: list[bytes | None] = []
        for number in range(begin, end):
            block, within = self._at(number)
            own = block.seek_points(within, within + 1)
            found.append(None if own is None else own[0])
        return found

    def sample(self, number: int, *, checked: bool = False) -> AnySample:
        """A whole sample, with its label in the whole."""
        block, within = self._at(number)
        return self._with_own_label(number, block.sample(within, checked=checked))

    def samples(self) -> Iterator[AnySample]:
        """All samples in order."""
        streams = {part: block.samples() for part, block in self.parts.items()}
        for number, (part, _) in enumerate(self._where):
            yield self._with_own_label(number, next(streams[part]))

    def _with_own_label(self, number: int, sample: AnySample) -> AnySample:
        if isinstance(sample.get("cls"), int):
            sample["cls"] = int(self.labels[number])
        elif self._several and FIELD in sample:
            sample[FIELD] = relabel_field(sample[FIELD], self._relabel[self._where[number][0]])
        return sample

    def place(self, number: int) -> tuple[str, int | None, str]:
        """(shard or file, byte or None, key) of a sample."""
        block, within = self._at(number)
        return block.place(within)
