"""Images that were read before it was known which shard they belong to."""

from __future__ import annotations

from typing import Any, NamedTuple


class ReadAhead(NamedTuple):
    """What an `Ahead` of the C extension `gather` read of the files below its folder `prefix`."""

    images: Any
    prefix: bytes

    @property
    def began(self) -> int | None:
        """When the first was read (nanoseconds, like file times); None if none was. No more are read after this."""
        began: int = self.images.end()
        return None if began < 0 else began
