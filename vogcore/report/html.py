"""From sections to one HTML file that needs nothing else: style, script, charts and pictures are inside of it.

Jinja escapes every text that comes from a file; only charts, which :mod:`vogcore.report.svg` has made and escaped, are
let through as they are. A content security policy names the page's one script by its hash, so that no other could
run, and forbids every connection.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vogcore.report.parts import Section

__all__ = ["render"]

_TEMPLATES = Path(__file__).parent / "templates"


def render(title: str, sections: Sequence[Section], numbers: dict[str, Any], version: str) -> str:
    """The page.

    Args:
        title: of the page.
        sections: its parts, in order.
        numbers: the main figures for other programs; NaN becomes null, since JSON has none.
        version: of vogcore.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text: str = environment.get_template("page.html").render(
        title=title,
        sections=sections,
        numbers=_for_json(numbers),
        version=version,
        style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        trusted=Markup,
        isnan=lambda value: isinstance(value, float) and math.isnan(value),
    )
    return text


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _for_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
