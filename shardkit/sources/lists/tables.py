"""Read a list of files (CSV, TSV, JSON lines, Parquet) as an Arrow table, with text unchanged.

pyarrow is imported when a list is read. Memory is bounded by the file's size: see limits.py.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from shardkit.errors import MissingSourceError, ShardkitError, SourceError, printable, reason_of
from shardkit.sample import fs_text

if TYPE_CHECKING:
    import pyarrow as pa

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "category", "target")
"""The usual names of the columns with the files' paths and with their labels, in lower case."""

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

SHOWN = 5
"""The columns that a message names."""

_CURE = "fix the row, or check that the file is what the ending of its name says"


def read_table(
    path: str,
    text_columns: tuple[str, ...] = (),
    csv_texts: tuple[str, ...] = (),
    *,
    csv_columns: tuple[str, ...] = (),
    references: bool = False,
) -> pa.Table:
    """Read the rows of a list. Columns of dates and times, and `text_columns`, stay text as written in the file.

    csv_texts: in a text file, the first of these names (in any case) that is a column counts as a text column.
    csv_columns: and all of these are, as written: 007 is not 7.
    references: of a Parquet file, see `read_parquet`.

    Raises SourceError: unreadable, damaged, not UTF-8 (with the row), without rows, with two columns of one name, with
    a row that is too long or too deep, or with far more values than its size lets expect.
    """
    import pyarrow as pa

    from shardkit.sources.lists.parquet import read_parquet
    from shardkit.sources.lists.text import read_text

    place = fs_text(path)
    try:
        if path.lower().endswith(".parquet"):
            table = read_parquet(path, place, references=references)
        else:
            of_json = is_json(path)
            first_of, texts = ((), ()) if of_json else (csv_texts, csv_columns)
            table = read_text(path, place, is_json=of_json, texts=text_columns + texts, first_of=first_of)
        require_distinct(table.column_names, place)
        if not table.num_rows:
            shown = ", ".join(map(printable, table.column_names[:SHOWN]))
            fact = f"the list has no rows below its header ({shown})" if table.column_names else "the list has no rows"
            raise SourceError(place, fact, "name at least one file, below a line with the names of the columns")
        return table.combine_chunks()
    except ShardkitError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as exc:
        raise SourceError(place, f"can't be read as a list ({printable(reason_of(exc))})", _CURE) from exc
    except FileNotFoundError as exc:
        raise MissingSourceError(place, "there is no such list", "check the path of the source") from exc
    except OSError as exc:
        if exc.errno is None:  # from PyArrow, for damaged data
            raise SourceError(place, f"can't be read as a list ({printable(str(exc))})", _CURE) from exc
        raise SourceError(
            place, f"can't be read ({exc.strerror or exc})", "check the disk and its permissions"
        ) from exc


def is_json(path: str) -> bool:
    """Whether a list is JSON lines, by its name."""
    return path.lower().endswith((".jsonl", ".ndjson"))


def require_distinct(names: list[str], place: str) -> None:
    """SourceError if two columns have one name."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise SourceError(place, f"two columns have the name {printable(twice[0])!r}", "rename one of them")


def is_list(path: str) -> bool:
    """Whether a path has the ending of a list, and is not a folder."""
    return path.lower().endswith(LIST_SUFFIXES) and not os.path.isdir(path)
