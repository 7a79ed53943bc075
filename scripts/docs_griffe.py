"""The site's lists of parameters: docstrings name them in running text, `size: the side. crop: "resize" squashes …`.

mkdocstrings loads this as an extension of griffe: in the reference, each parameter or attribute that a docstring
describes so becomes an item of a list.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import griffe


def as_list(text: str, names: Collection[str]) -> str:
    """The docstring with a list where its text describes some of these names."""
    if not names:
        return text
    some = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    start = re.compile(rf"(?:^|(?<=[.;)] ))((?:{some})(?:, (?:{some}))*): ")
    return "\n\n".join(_listed(paragraph, start) for paragraph in re.split(r"\n[ \t]*\n", text))


def _listed(paragraph: str, start: re.Pattern[str]) -> str:
    if paragraph.startswith((" ", "\t", ">>>", "- ", "|")) or "\n  " in paragraph:
        return paragraph
    line = " ".join(paragraph.split())
    found = list(start.finditer(line))
    if not found:
        return paragraph
    ends = [*(each.start() for each in found[1:]), len(line)]
    items = [
        f"- {', '.join(f'`{name}`' for name in each[1].split(', '))}: {line[each.end() : end].strip()}"
        for each, end in zip(found, ends, strict=True)
    ]
    before = line[: found[0].start()].strip()
    return "\n".join([*([before, ""] if before else []), *items])


class ParameterLists(griffe.Extension):
    """Rewrites the docstrings of functions and classes."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Its parameters."""
        if func.docstring:
            func.docstring.value = as_list(func.docstring.value, {each.name for each in func.parameters})

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Its attributes, the fields of a dataclass among them, and the parameters of `__init__`."""
        if cls.docstring:
            init = cls.members.get("__init__")
            given = {each.name for each in init.parameters} if isinstance(init, griffe.Function) else set()
            names = {name for name, member in cls.members.items() if isinstance(member, griffe.Attribute)}
            cls.docstring.value = as_list(cls.docstring.value, names | given)
