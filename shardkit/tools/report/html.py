"""Building blocks of the report's page. Everything that comes from a dataset is escaped by `text`."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from shardkit.errors import printable


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its id, heading (plain text), and content (HTML)."""

    id: str
    title: str
    content: str


def text(value: object) -> str:
    """Escape any text for HTML: escape markup, show control characters."""
    return html.escape(printable(str(value)), quote=True)


def paragraph(content: str) -> str:
    """A paragraph of HTML."""
    return f"<p>{content}</p>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[int] = (0,)) -> str:
    """A table of plain texts with a caption. The first column names the row; columns in `left` are left-aligned.

    On a narrow screen it scrolls separately, also with the keyboard.
    """

    def cell(number: int, value: object) -> str:
        kind = ' class="left"' if number in left else ""
        return f'<th scope="row"{kind}>{text(value)}</th>' if number == 0 else f"<td{kind}>{text(value)}</td>"

    top = "".join(
        f'<th scope="col"{" class=" + chr(34) + "left" + chr(34) if number in left else ""}>{text(name)}</th>'
        for number, name in enumerate(head)
    )
    body = "\n".join("<tr>" + "".join(cell(n, value) for n, value in enumerate(row)) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def figure(svg: str, caption: str, numbers: str) -> str:
    """A plot with its caption (HTML), and its numbers in a collapsible table."""
    details = f"<details><summary>The numbers as a table</summary>{numbers}</details>" if numbers else ""
    return f'<figure class="chart">{svg}<figcaption>{caption}</figcaption>{details}</figure>'


@dataclass(frozen=True, slots=True)
class Thumb:
    """A thumbnail: its JPEG bytes (or the reason why there are none), size, alt text, and a line below."""

    jpeg: bytes | None
    width: int
    height: int
    alt: str
    line: str


def thumbs(pictures: Sequence[Thumb], *, wide: bool = False) -> str:
    """Thumbnails in a list that wraps. wide: leave room for long lines."""
    if not pictures:
        return ""
    kind = "thumbs wide" if wide else "thumbs"
    return f'<ul class="{kind}">{"".join(map(_thumb, pictures))}</ul>'


def _thumb(picture: Thumb) -> str:
    line = f"<span>{text(picture.line)}</span>"
    if picture.jpeg is None:
        return f'<li><div class="missing">{text(picture.alt)}</div>{line}</li>'
    data = base64.b64encode(picture.jpeg).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<li><img src="data:image/jpeg;base64,{data}" {size} alt="{text(picture.alt)}" loading="lazy">{line}</li>'


def page(title: str, about: str, sections: Sequence[Section], foot: str) -> str:
    """The whole page. title is plain text; about and foot are HTML."""
    links = "".join(f'<li><a href="#{part.id}">{text(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        f'<section id="{part.id}" aria-labelledby="{part.id}-h">\n<h2 id="{part.id}-h">{text(part.title)}</h2>\n'
        f"{part.content}\n</section>"
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{text(title)}</h1>{about}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main id="main" tabindex="-1">
{body}
</main>
<footer>{foot}</footer>
</body>
</html>
"""


STYLE = """
:root { --paper:#fff; --ink:#1b1f24; --faint:#57606a; --line:#d5dae0; --panel:#f4f6f8; --first:#1764b0;
  --second:#b04e0f; --link:#0b57a4; --bad:#a31621; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171b; --ink:#e7eaed; --faint:#a9b1ba; --line:#3a4149;
  --panel:#1d2228; --first:#6fb1f2; --second:#f0a05c; --link:#8cc2ff; --bad:#ff9a94; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; padding: 1rem clamp(.8rem, 3vw, 2rem) 3rem; max-width: 75rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
h3 small { color: var(--faint); font-weight: normal; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--first); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -100vw; } .skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; list-style: none; margin: 1rem 0 0; padding: 0; }
nav a { display: inline-block; padding: .3rem 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.facts div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.facts dt { color: var(--faint); font-size: .85rem; } .facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
.notes li { margin: .35rem 0; } .bad { color: var(--bad); font-weight: 600; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 1.5rem;
  align-items: start; }
figure.chart { margin: .8rem 0; max-width: 38rem; } .plot { width: 100%; height: auto; display: block; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--faint); font-size: .9rem; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--link); padding: .25rem 0; }
.scroll { overflow: auto; max-height: 30rem; margin: .5rem 0; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; color: var(--faint); padding: .2rem 0; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; } tbody th { font-weight: normal; } .left { text-align: left; overflow-wrap: anywhere; }
.thumbs { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; padding: 0; margin: .3rem 0; align-items: end; }
.thumbs li { width: 6.6rem; font-size: .75rem; line-height: 1.3; color: var(--faint); }
.thumbs.wide { align-items: start; gap: .8rem 1.2rem; } .thumbs.wide li { width: 15rem; max-width: 100%; }
.thumbs img { display: block; image-rendering: pixelated; margin-bottom: .2rem; }
.thumbs span { display: block; overflow-wrap: anywhere; }
.missing { width: 6rem; height: 6rem; border: 1px solid var(--bad); color: var(--bad); padding: .3rem;
  overflow: hidden; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--faint); font-size: .85rem; }
@media print { nav, .skip { display: none; } .scroll { max-height: none; overflow: visible; } }
"""
