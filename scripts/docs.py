#!/usr/bin/env python3
"""The documentation site: built strictly, and checked.

python scripts/docs.py            build the site into build/site, and check it: what `scripts/check docs` runs
python scripts/docs.py write      draw docs/images/ again; a test compares them

A build is strict: a page that is not in the navigation, and a link or anchor that leads nowhere, is an error. What the
built pages load must be in the site, so that it works without a network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docs_pictures

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"


class Loaded(HTMLParser):
    """What a page loads by itself, from its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses of scripts, style sheets and pictures."""
        given = dict(attrs)
        loads = tag in ("script", "img", "source", "iframe") or (
            tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload")
        )
        address = given.get("src") or given.get("href")
        if loads and address:
            self.found.append(address)


def problems() -> Iterator[str]:
    """What the pages of the built site load from elsewhere, or what is not there."""
    for page in sorted(SITE.rglob("*.html")):
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        for address in loaded.found:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            name = unquote(parts.path)
            place = SITE / name.lstrip("/") if name.startswith("/") else page.parent / name
            if parts.scheme or parts.netloc:
                yield f"{page.relative_to(SITE)}: loads {address}, from another host"
            elif not place.exists():
                yield f"{page.relative_to(SITE)}: loads {address}, which is not in the site"


def unlisted() -> Iterator[str]:
    """The pages that llms.txt does not name."""
    named = set(re.findall(r"\]\(([^)]+\.md)\)", (SITE / "llms.txt").read_text("utf-8")))
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = str(page.relative_to(ROOT / "docs"))
        if name not in named:
            yield f"llms.txt: does not name {name}"


def build() -> int:
    """Build and check; the exit status."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False)
    if done.returncode:
        return done.returncode
    found = [*problems(), *unlisted()]
    print("\n".join(found) if found else f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}")
    return 1 if found else 0


def write() -> None:
    """Draw the pictures."""
    for name, content in docs_pictures.drawn().items():
        (docs_pictures.FOLDER / name).write_text(content, "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write()
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        sys.exit(build())
