"""What mkdocs can't do by itself: pages from files outside docs/, folders in the navigation, links, and llms.txt.

mkdocs calls the functions `on_…`. Markdown files are written for the repository, so that their links work there too;
links that lead out of docs/ become links to the page of that file, or its path in code marks.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

INCLUDED = {
    "benchmarks.md": "benchmarks/RESULTS.md",
    "benchmarks-method.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
"""Page of the site -> the file of the repository that it shows."""

RESULTS = "reference/results.md"
"""The page of all public classes that have no other, such as the results of new functions."""

PAGE_OF = {path: page for page, path in INCLUDED.items()} | {"README.md": "index.md"}

FOLDERS = {"Coming from": "coming-from", "Decisions": "decisions"}
"""Section of the navigation -> the folder of docs/ whose pages it lists."""

MORE = "More"
"""The section of pages that mkdocs.yml does not name."""

LLMS_HEAD = """\
# shardkit

> Python library and command line that pack a class-directory tree of images into tar (WebDataset layout) or TFRecord
> shards with an index and a manifest, and stream them into training with Keras, PyTorch, JAX or plain NumPy: shuffled,
> decoded, batched, exactly resumable, the same for any number of ranks, from a disk or a bucket.

The whole of it in four lines:

    shardkit.pack("data", "shards")                                  # or: shardkit pack data shards
    train = shardkit.dataset("shards/train", shuffle=True, seed=0)
    batches = train.decode(size=224, crop="random", flip=True).batch(64)   # NumPy: uint8 (64, 224, 224, 3), int64 (64,)
    model.fit(batches.to_keras())                                    # or to_tf(), to_torch(), or iterate

"""

_TEXTS: dict[str, str] = {}
"""Page -> its Markdown, with the links of the site."""

_SHOWN = re.compile(r"^::: shardkit\.(\w+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def pages_of(folder: str) -> list[str]:
    """The pages in a folder of docs/, an index first."""
    found = sorted(path.name for path in (ROOT / "docs" / folder).glob("*.md"))
    return [f"{folder}/{name}" for name in sorted(found, key=lambda name: name != "index.md")]


def filled(nav: Any) -> Any:
    """The navigation, in which the sections of FOLDERS list their pages, and MORE those that are nowhere else."""
    lists = {name: pages_of(folder) for name, folder in FOLDERS.items()}
    listed = {*INCLUDED, *pages(nav), *(page for each in lists.values() for page in each)}
    written = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return _with_lists(nav, lists | {MORE: [page for page in written if page not in listed]})


def _with_lists(section: Any, lists: dict[str, list[str]]) -> Any:
    """A part of the navigation with the pages of some sections by name; sections without pages are omitted."""
    if isinstance(section, list):
        return [each for each in (_with_lists(part, lists) for part in section) if each]
    if isinstance(section, dict):
        whole = {name: lists.get(name) or _with_lists(part, lists) for name, part in section.items()}
        return {name: part for name, part in whole.items() if part}
    return section


def pages(section: Any) -> Iterator[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(section, str):
        yield section
    for part in section.values() if isinstance(section, dict) else section if isinstance(section, list) else ():
        yield from pages(part)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    config.nav = filled(config.nav)
    return config


def results() -> str:
    """The public classes of shardkit that no page of the reference lists, as instructions of mkdocstrings."""
    import shardkit

    text = "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md")))
    listed = set(_SHOWN.findall(text))
    return "".join(f"::: shardkit.{name}\n" for name in shardkit.__all__ if name not in {*listed, "__version__"})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text is elsewhere in the repository."""
    for page, path in INCLUDED.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text("utf-8")))
    return files


def link(text: str, target: str, home: str) -> str:
    """A link of a file in the repository, as the site has it. home: the folder of that file, from the root."""
    path, hash_, anchor = target.partition("#")
    if "://" in target or target.startswith("mailto:") or not path:
        return f"[{text}]({target})"
    full = posixpath.normpath(posixpath.join(home, path))
    if full in PAGE_OF:
        return f"[{text}](/{PAGE_OF[full]}{hash_}{anchor})"
    if full.startswith("docs/"):
        page = full.removeprefix("docs/")
        if Path(page).suffix:
            return f"[{text}](/{page}{hash_}{anchor})"
    return f"`{full}`" if text.strip("`") in (full, path, posixpath.basename(path)) else f"{text} (`{full}`)"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links for the repository into links for the site."""
    source = INCLUDED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    home, here = posixpath.dirname(source), posixpath.dirname(page.file.src_uri)

    def replaced(found: re.Match[str]) -> str:
        new = link(found[1], found[2], home)
        return re.sub(r"\]\(/([^)]*)\)$", lambda to: f"]({posixpath.relpath(to[1], here or '.')})", new)

    parts = _FENCE.split(markdown)
    text = "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)
    if page.file.src_uri == RESULTS:
        text += results()
    _TEXTS[page.file.src_uri] = text
    return text


def entry(page: str, text: str) -> str:
    """The line of llms.txt for a page: its title, and the first sentence if it begins with one."""
    title, _, body = text.partition("# ")[2].partition("\n")
    paragraph = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(body.strip().partition("\n\n")[0].split()))
    sentence = re.match(r"[A-Z`].*?\.(?= |$)", paragraph.replace("**", ""))
    return f"- [{title}]({page})" + (f": {sentence[0]}" if sentence else "") + "\n"


def llms_text(nav: list[dict[str, Any]], texts: dict[str, str]) -> str:
    """The text of llms.txt (llmstxt.org): what the project is, and each page as Markdown."""
    parts = [LLMS_HEAD]
    for name, section in (item for part in nav for item in part.items()):
        lines = [entry(page, texts[page]) for page in pages(section)]
        parts.append(f"## {name}\n\n{''.join(lines)}\n")
    return "".join(parts).rstrip("\n") + "\n"


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt, and each page as Markdown beside its HTML."""
    site = Path(config.site_dir)
    (site / "llms.txt").write_text(llms_text(config.nav or [], _TEXTS), "utf-8")
    for page, text in _TEXTS.items():
        (site / page).write_text(text, "utf-8")
