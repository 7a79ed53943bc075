"""`shardkit view`: a contact sheet of random samples, by class, or a page for a browser."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import click
from click.core import ParameterSource

from shardkit.cli import console, tables
from shardkit.cli.click_options import Json, arguments, flag_of, options_from
from shardkit.cli.command import Command
from shardkit.errors import UsageError, printable
from shardkit.options.fields import AtLeast, AtMost, Help, options_of
from shardkit.tools.settings import ViewPageSettings, ViewSettings
from shardkit.units import format_bytes

if TYPE_CHECKING:
    from shardkit.tools.view import ContactSheet
    from shardkit.tools.viewer.page import ViewPage


@dataclass(frozen=True, slots=True, kw_only=True)
class AsPage:
    """The options that ask for a page in place of a picture."""

    html: Annotated[
        bool, Help("Write an HTML page that shows all images in a browser; --out is by default beside the shards.")
    ] = False
    serve: Annotated[bool, Help("With --html: serve the page to this machine until Ctrl-C.")] = False
    port: Annotated[
        int | None, AtLeast(1), AtMost(65_535), Help("With --serve: port of the server.", "N", unset="a free one")
    ] = None


@click.command(cls=Command, name="view", short_help="Draw random samples, or write a page of all images.")
@click.argument("source")
@options_from(ViewSettings, AsPage, Json)
@console.output_options
def command(source: str, as_json: bool, html: bool, serve: bool, port: int | None, **options: Any) -> None:
    """Draw random samples of each class of SOURCE to a PNG file: a row for each class, a key below each picture.

    SOURCE is a prefix, a manifest, a glob of the shards, or a class directory.

    With --html, write a page that shows all images of a dataset, or of a folder of splits, in a browser. It can be
    filtered by class, size and every other column of the index. The page reads only what it shows, by HTTP ranges: put
    it on any web server or into the bucket, beside the shards.

    \b
    shardkit view shards/train
    shardkit view shards/train --class blue --class red --count 5 --seed 1 --out cars.png
    shardkit view shards/train --augmented --size 32 --out augmented.png
    shardkit view shards --html
    shardkit view shards/train --html --serve
    """
    if html:
        _page(source, as_json, serve, port, options)
        return
    if serve or port is not None:
        raise UsageError("--serve" if serve else "--port", "it belongs to a page", "add --html")
    from shardkit.tools.view import view

    with console.progress() as progress:
        sheet = view(source, progress=progress, **arguments(ViewSettings, options))
    if as_json:
        console.write_json(sheet)
    else:
        console.summary(sheet_text(sheet))


def _page(source: str, as_json: bool, serve: bool, port: int | None, options: dict[str, Any]) -> None:
    from shardkit.tools.viewer.page import view_page

    asked = _asked_of_page(options)
    if port is not None and not serve:
        raise UsageError("--port", "it belongs to a server", "add --serve")
    page = view_page(source, **asked)
    if as_json:
        console.write_json(page)
    else:
        console.summary(page_text(page))
    if serve:
        from shardkit.tools.viewer.serve import PageServer

        with PageServer(page, port or 0) as server:
            console.summary(f"{server.address}\n  press Ctrl-C to end")
            console.flush()
            with contextlib.suppress(KeyboardInterrupt):  # the usual end
                server.serve_forever()


def _asked_of_page(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a page that were given. UsageError for one of a picture."""
    context = click.get_current_context()
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    known = {each.name for each in options_of(ViewPageSettings)}
    for option in options_of(ViewSettings):
        if option.name in given - known:
            raise UsageError(flag_of(option), "it belongs to a picture, and --html asks for a page", "omit one of them")
    return {name: options[name] for name in given & known}


def sheet_text(sheet: ContactSheet) -> str:
    """Format the result as text: what was drawn, and where it is."""
    samples = tables.plural(sum(len(part.keys) for part in sheet.classes), "sample")
    classes = tables.plural(len(sheet.classes), "class", "classes")
    lines = [f"{printable(sheet.path)}: {samples} of {classes}, {sheet.width} x {sheet.height} pixels"]
    if sheet.undecodable:
        broken = ", ".join(map(printable, sheet.undecodable[:3])) + (" …" if len(sheet.undecodable) > 3 else "")
        lines.append(f"  {tables.plural(len(sheet.undecodable), 'image')} can't be decoded: {broken}")
    return "\n".join(lines)


def page_text(page: ViewPage) -> str:
    """Format the result as text: where the page is, what it shows, and where it has to be put."""
    samples = tables.plural(sum(each.samples for each in page.datasets), "sample")
    datasets = ", ".join(printable(each.name) for each in page.datasets)
    lines = [f"{printable(page.path)}: {format_bytes(page.bytes)}, shows {samples} of {datasets}"]
    if page.beside:
        lines.append("  upload it to the folder of the shards, and open it from there")
    return "\n".join(lines)
