"""The C sources of a part, and their digest: setup.py puts it into the part, and the loader compares it.

setup.py runs this file before shardkit is installed: it imports the standard library only.
"""

from __future__ import annotations

import os


def sources_of(part: str, folder: str) -> list[str]:
    """The C file of a part and all headers that it includes, also through others. folder: that of the C file."""
    import re

    included = re.compile(rb'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
    found, waiting = list[str](), [os.path.join(folder, f"{part}.c")]
    while waiting:
        path = os.path.normpath(waiting.pop())
        if path not in found:
            found.append(path)
            with open(path, "rb") as file:
                names = included.findall(file.read())
            waiting += [os.path.join(os.path.dirname(path), os.fsdecode(name)) for name in names]
    return [found[0], *sorted(found[1:])]


def digest_of(paths: list[str]) -> str:
    """A digest of the contents of files, as a name in C."""
    import hashlib

    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        digest.update(b"%d:" % len(data) + data)
    return "s" + digest.hexdigest()[:16]


def newest_in(folder: str) -> int:
    """When a C file or header in a folder, or below it, was changed last, in nanoseconds."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".c", ".h")):
                found = max(found, entry.stat().st_mtime_ns)
            elif "." not in entry.name and entry.is_dir():
                found = max(found, newest_in(entry.path))
    return found


def is_older(built: int, digest: str | None, part: str, folder: str) -> bool:
    """Whether a part is not built from the sources in a folder. built: when it was, in nanoseconds. digest: what it
    says of itself. It is not compared while no source is newer: setuptools builds nothing again then."""
    try:
        sources = sources_of(part, folder)
        return max(os.stat(path).st_mtime_ns for path in sources) > built and digest != digest_of(sources)
    except OSError:  # a header of the C file is gone
        return True
