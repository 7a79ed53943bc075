"""Write the page that shows a dataset in a browser: one HTML file, which reads index and images by HTTP ranges.

The parts of the page are in web/: a style sheet and scripts, which become one inline script in the order of SCRIPTS.
The page contains the names and places of the manifests, and nothing else of the dataset: it reads manifest and index
when it is opened, so it shows what is there then. Its policy (CSP) allows this script and style only, whatever the
dataset holds.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shardkit.errors import DatasetError, UsageError, printable
from shardkit.location import Location
from shardkit.options.fields import checked_by
from shardkit.shards.find.find import resolve
from shardkit.shards.manifest import OWN_CURE, Manifest
from shardkit.shards.objects import has_lists
from shardkit.storage.access import Remote
from shardkit.storage.files import whole_file
from shardkit.tools.pictures import out_path
from shardkit.tools.settings import ViewPageSettings
from shardkit.tools.splits import splits_in
from shardkit.units import short_repr

WEB = Path(__file__).with_name("web")
SCRIPTS = (
    "zstd", "parquet", "net", "corrections", "data", "near", "filter", "images", "grid", "selection", "lightbox",
    "panel", "app",
)  # fmt: skip
"""In the order of the page: what a script needs when it is loaded comes before it."""
ENDINGS = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class PageDataset:
    """A dataset on a page: its name, its manifest (a path or URL), and its samples when the page was written."""

    name: str
    manifest: str
    samples: int


@dataclass(frozen=True, slots=True)
class ViewPage:
    """Result. bytes: size of the page. beside: whether the page must be put beside the shards, in their bucket."""

    path: str
    bytes: int
    datasets: tuple[PageDataset, ...]
    beside: bool

    __repr__ = short_repr


@checked_by(ViewPageSettings)
def view_page(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> ViewPage:
    """Write a page that shows the images of a dataset in a browser, to the HTML file `out`, replacing it.

    source: a prefix or manifest, or a folder with several datasets, such as splits, which are all on the page. out: by
    default `NAME.html` beside the shards (`view.html` for several datasets), or in the current folder for a dataset in
    a store. storage_options: for the store, as in `dataset`.

    The page reads manifest, index and images by HTTP ranges, from where they are relative to `out`; for `https://…`,
    from there; for a bucket, beside the page, which has to be uploaded to their folder. A page that is opened as a file
    can read nothing: it needs a server, such as that of `shardkit view --html --serve`. A corrected dataset is shown as
    corrected, and shards elsewhere than their index are read from where they are.

    Raises UsageError for class directories, parts of a dataset, and shards that a browser can't reach from the page;
    DatasetError for shards without an index and compressed shards; and the errors of `dataset`.
    """
    remote = Remote(storage_options)
    found = splits_in(os.fspath(source), remote) or {"": os.fspath(source)}
    shown = [_shown(each, remote) for each in found.values()]
    path = out_path(_default_out([place for place, _ in shown]) if out is None else out, ENDINGS)
    datasets = tuple(
        PageDataset(place.name.removesuffix(".json"), str(place), manifest.samples) for place, manifest in shown
    )
    places = [_places(place, manifest, path) for place, manifest in shown]
    content = _page([each.name for each in datasets], places).encode("utf-8")
    with whole_file(path, sync=False) as file:
        file.write(content)
    beside = any(not place.is_local and not _is_web(place) for place, _ in shown)
    return ViewPage(path, len(content), datasets, beside)


def _shown(source: str, remote: Remote) -> tuple[Location, Manifest]:
    """The manifest of a whole dataset whose images can be read by ranges."""
    found = resolve(source, remote)
    found.require_dataset("pack it with 'shardkit pack'")
    manifest, place = found.manifest, found.location
    if manifest is None or place is None:
        raise DatasetError(source, "these shards have no manifest", "make one with 'shardkit index'")
    if found.numbers is not None and len(found.numbers) < len(manifest.shards):
        fact = f"it names {len(found.numbers)} of {len(manifest.shards)} shards, and a page shows whole datasets"
        raise UsageError(source, fact, f"name the dataset: {str(place).removesuffix('.json')}")
    if manifest.samples and not manifest.index:
        raise DatasetError(str(place), "the dataset has no index", "make one with 'shardkit index'")
    if any(manifest.unpacked_bytes):
        fact = "its shards are compressed, so that a browser can't read single images"
        raise DatasetError(str(place), fact, "write plain shards with 'shardkit convert'")
    return place, manifest


def _default_out(places: Sequence[Location]) -> str:
    first = places[0]
    name = "view.html" if len(places) > 1 else f"{first.name.removesuffix('.json')}.html"
    return first.sibling(name).path if first.is_local else name


def _is_web(place: Location) -> bool:
    return not place.is_local and not has_lists(place.parent)


def _places(place: Location, manifest: Manifest, out: str) -> dict[str, str]:
    """The addresses of a manifest and, if it is elsewhere, of the folder of its shards, as the page at `out` names
    them."""
    found = {"manifest": _href(place, out)}
    if manifest.elsewhere:
        shards = manifest.shards_beside(place).parent
        found["shards"] = f"{_href(shards, out) if _is_web(shards) else _folder(shards, place, out)}/"
    return found


def _folder(shards: Location, manifest: Location, out: str) -> str:
    """The address of a folder of shards on a disk or in a bucket. UsageError if no page beside the manifest has one."""
    if shards.is_local and manifest.is_local:
        return _relative(shards, out)
    same = shards.scheme == manifest.scheme and shards.path.split("/")[0] == manifest.path.split("/")[0]
    if same and not shards.is_local and not _is_web(manifest):
        return "./" + quote(posixpath.relpath(shards.path, manifest.parent.path))
    fact = f"its shards are in {shards}, where no browser finds them from a page beside {manifest}"
    raise UsageError(str(manifest), fact, OWN_CURE)


def _href(place: Location, out: str) -> str:
    """The address of a manifest or of a folder of the web, as the page at `out` names it."""
    if _is_web(place):
        if place.query:
            fact = "a signed address would be readable in the page, and holds for one file only"
            raise UsageError(str(place), fact, "put the page beside the shards, on a server that needs no signature")
        return str(place)
    return _relative(place, out) if place.is_local else "./" + quote(place.name)


def _relative(place: Location, out: str) -> str:
    try:
        relative = os.path.relpath(os.path.abspath(place.path), os.path.dirname(os.path.abspath(out)))
    except ValueError as exc:  # another drive of Windows
        raise UsageError(out, "no relative path leads from here to the shards", "write it to their drive") from exc
    return "./" + quote(relative.replace(os.sep, "/"), errors="surrogateescape")


def _page(names: Sequence[str], places: Sequence[Mapping[str, str]]) -> str:
    script = "".join((WEB / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    style = (WEB / "style.css").read_text("utf-8")
    datasets = [{"name": printable(name), **each} for name, each in zip(names, places, strict=True)]
    parts = {
        "title": html.escape(printable(", ".join(names))),
        "style": style,
        "style-hash": _digest(style),
        "script": script,
        "script-hash": _digest(script),
        "config": json.dumps({"datasets": datasets}).replace("<", "\\u003c"),
    }
    pieces = (WEB / "page.html").read_text("utf-8").split("{")  # what is put in is not searched again
    return pieces[0] + "".join(_filled(piece, parts) for piece in pieces[1:])


def _filled(piece: str, parts: Mapping[str, str]) -> str:
    name, _, rest = piece.partition("}")
    return parts[name] + rest


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
