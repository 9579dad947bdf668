"""Roles in docstrings, such as :class:`vogcore.Scores`, as links of the site, for mkdocstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Roles", "linked"]

_ROLE = re.compile(r":(?:py:)?(?:class|meth|func|attr|mod|data|exc|obj):`(~?)([\w.]+)`")


def linked(text: str) -> str:
    """The text with every role as code, linked where the site has a page for the name."""

    def link(match: re.Match[str]) -> str:
        name = match[2]
        shown = name.rpartition(".")[2] if match[1] else name
        target = name if name.startswith("vogcore") else f"vogcore.{name}"
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(link, text)


class Roles(griffe.Extension):
    """Rewrites the docstrings of everything that is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """A module, class, function or attribute was read."""
        if obj.docstring is not None:
            obj.docstring.value = linked(obj.docstring.value)
