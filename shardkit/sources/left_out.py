"""Files and folders that a scan leaves out: counted by reason, with a few examples of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardkit.errors import printable
from shardkit.sample import fs_text

HIDDEN_FILES = "hidden files"
HIDDEN_FOLDERS = "hidden folders"
SYSTEM = "system files and folders"
OTHER_EXTENSIONS = "files with other extensions"
NOT_IN_A_CLASS = "files not in a class folder"
BROKEN_LINKS = "symbolic links that lead nowhere"
LINK_LOOPS = "symbolic links back to a folder that holds them"
SPECIAL = "pipes, sockets and devices"
NO_PATHS = "objects whose names are not paths (an empty part, . or ..)"
TOO_DEEP = "objects that are too many folders deep"
VANISHED = "files that vanished during the scan"

EXAMPLES = 5
_EXTENSIONS = 1000  # distinct extensions that are counted separately; random names must not fill the memory


@dataclass(frozen=True, slots=True)
class LeftOutEntry:
    """The count for one reason, and the first few paths below the root, in scan order."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a scan left out. `reasons`: reason -> entry; `extensions`: extension (with its dot, lower case) -> files."""

    reasons: Mapping[str, LeftOutEntry] = field(default_factory=dict)
    extensions: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of files and folders left out; a folder counts once, whatever it contains."""
        return sum(entry.count for entry in self.reasons.values())

    def lines(self) -> list[str]:
        """One line for each reason: `files with other extensions: 3 (.txt 2, .csv 1)`."""
        return [f"{reason}: {entry.count} ({self._detail(reason, entry)})" for reason, entry in self.reasons.items()]

    def _detail(self, reason: str, entry: LeftOutEntry) -> str:
        if reason == OTHER_EXTENSIONS:
            common = sorted(self.extensions.items(), key=lambda item: (-item[1], item[0]))
            shown = [f"{printable(extension)} {count}" for extension, count in common[:EXAMPLES]]
            more = len(common) > EXAMPLES
        else:
            shown = [printable(example) for example in entry.examples]
            more = entry.count > len(shown)
        return ", ".join([*shown, "…"] if more else shown)


class LeftOutCounter:
    """Count what a scan leaves out; memory does not grow with the number of files."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._extensions: Counter[str] = Counter()

    def add(self, reason: str, path: str) -> None:
        """Count one path (below the root, as text from `os.fsdecode`)."""
        self._counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(fs_text(path))
        if reason == OTHER_EXTENSIONS:
            extension = _extension(path)
            known = extension in self._extensions or len(self._extensions) < _EXTENSIONS
            self._extensions[extension if known else "others"] += 1

    def result(self) -> LeftOut:
        """The counts so far, with reasons sorted by text."""
        entries = {
            reason: LeftOutEntry(count, tuple(self._examples[reason])) for reason, count in sorted(self._counts.items())
        }
        return LeftOut(entries, dict(self._extensions))


def _extension(path: str) -> str:
    stem, _, extension = path.rpartition("/")[2].rpartition(".")
    return "." + fs_text(extension.lower()) if stem else "without extension"
