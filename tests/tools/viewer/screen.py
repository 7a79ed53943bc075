"""What a test sees of the page, and does to it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from tools.viewer.browser import Browser
from tools.viewer.site import Site

from shardkit import view_page

SHOWN = "[...document.querySelectorAll('.cell')].map((cell) => cell.getAttribute('aria-label'))"
KEYS = f"{SHOWN}.map((text) => text.split(', ').at(-2))"
COUNT = "document.querySelector('[data-part=count]').textContent"
DRAWN = "[...document.querySelectorAll('.cell img')].filter((image) => image.naturalWidth).length"
PYTHON = "document.querySelector('[data-part=python]').textContent"


def part(name: str) -> str:
    return f"document.querySelector('[data-part={name}]')"


def open_page(browser: Browser, site: Site, source: Path, hash: str = "") -> None:
    name = Path(view_page(source).path).name
    browser.open(f"{site.url}/{quote(name)}{hash}")
    browser.wait(f"{COUNT}.includes('sample')")


def set_value(browser: Browser, selector: str, value: str) -> None:
    event = "change" if "sort" in selector else "input"
    browser.run(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
        f"e.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()"
    )


def copied(browser: Browser, name: str, done: str) -> str:
    """What a button copies. The clipboard of a headless browser can't be read: it is replaced."""
    browser.run(
        "navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }; globalThis.copied = null"
    )
    browser.click(f"[data-part={name}]")
    browser.wait("globalThis.copied !== null")
    browser.wait(f"{part('status')}.textContent === {json.dumps(done)}")
    text: str = browser.run("globalThis.copied")
    return text


def keys_of(browser: Browser) -> list[str]:
    """The keys of the samples on the screen, once they are known."""
    found: list[str] = browser.wait(f"{SHOWN}.length && {SHOWN}.every(Boolean) && {KEYS}")
    return found
