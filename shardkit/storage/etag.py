"""S3 ETags: checksums of what the store received, which verify an upload without reading it back.

One request: the MD5 of the bytes. Parts: the MD5 of the MD5s of the parts, a dash, and how many there are. Source:
"Checking object integrity in Amazon S3", AWS. Objects encrypted with KMS keys have other ETags, so a matching ETag is
proof, and a different one says nothing.
"""

from __future__ import annotations

import hashlib

PART_BYTES = 16 << 20
"""The size of an upload part: 10,000 of them, S3's limit, make 156 GiB."""

SCHEMES = frozenset(("s3", "s3a", "gs"))
"""The schemes with such ETags; on Google Cloud Storage only for objects written by one request."""


class Etag:
    """Compute the ETag of what a RemoteStore writes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._part = hashlib.md5(usedforsecurity=False)
        self._room = PART_BYTES

    def update(self, piece: memoryview) -> None:
        """Add the next bytes."""
        while piece:
            some = piece[: self._room]
            self._part.update(some)
            self._room -= len(some)
            piece = piece[len(some) :]
            if not self._room:
                self._parts.append(self._part.digest())
                self._part, self._room = hashlib.md5(usedforsecurity=False), PART_BYTES

    def fits(self, etag: str | None) -> bool:
        """Whether `etag` is the ETag of the bytes added so far."""
        parts = [*self._parts, self._part.digest()] if self._room < PART_BYTES or not self._parts else self._parts
        joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
        wanted = [f"{joined}-{len(parts)}", *([parts[0].hex()] if len(parts) == 1 else [])]
        return etag is not None and etag.strip('"') in wanted
