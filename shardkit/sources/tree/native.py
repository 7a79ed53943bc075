"""List a folder with the C extension `tree`, which also finds the sizes of the images, without the GIL.

Entries that are not plainly images are left to Python by name (`Named`). If the extension is not built, the walk lists
with `os.scandir`; the result is equal either way.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Collection

from shardkit.native import load
from shardkit.system import POSIX

Listed = tuple[str, bytes, list[str]]
"""(the names of the images, each followed by a slash, their sizes as int64, the names of all other entries), sorted."""


def lister(extensions: Collection[str]) -> Callable[[int], Listed | None] | None:
    """A function that lists the folder of a descriptor; None without the extension, or on Windows, which has no
    descriptors of folders.

    extensions: of images, in each case that they may have. The function returns None for a folder with an image whose
    name is not UTF-8.
    """
    native = load("tree")[0]
    if native is None or not POSIX or sys.getfilesystemencoding() != "utf-8":
        return None
    wanted = joined_extensions(extensions)

    def listed(folder: int) -> Listed | None:
        found: Listed | None = native.list_folder(folder, wanted)
        return found

    return listed


def joined_extensions(extensions: Collection[str]) -> bytes:
    """Extensions in the form that the C extensions take: common ones first, each followed by a NUL."""
    return b"".join(os.fsencode(extension) + b"\0" for extension in sorted(extensions, key=_common_first))


def in_both_cases(extensions: Collection[str]) -> frozenset[str]:
    """Extensions in lower case, and in upper case."""
    return frozenset(form for extension in extensions for form in (extension, extension.upper()))


def _common_first(extension: str) -> tuple[bool, str]:
    """The order in which extensions are compared."""
    return extension.lower() not in ("jpg", "jpeg", "png"), extension


class Named:
    """An entry of the folder `folder` (a descriptor), with the methods of `os.DirEntry` that a walk uses."""

    def __init__(self, name: str, folder: int) -> None:
        self.name, self._folder = name, folder
        self._known: os.stat_result | None = None

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder; False if it is gone."""
        return self._has_type(stat.S_ISDIR, follow=follow_symlinks)

    def is_file(self) -> bool:
        """Whether it is, or leads to, a regular file; False if it is gone."""
        return self._has_type(stat.S_ISREG, follow=True)

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        return self._has_type(stat.S_ISLNK, follow=False)

    def stat(self) -> os.stat_result:
        """The status of what it is or leads to. Raises OSError."""
        if self._known is None:
            self._known = os.stat(self.name, dir_fd=self._folder)
        return self._known

    def _has_type(self, test: Callable[[int], bool], *, follow: bool) -> bool:
        try:
            status = self.stat() if follow else os.lstat(self.name, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return test(status.st_mode)
