"""From a matplotlib figure to SVG that lies inside a page: text as text, colours of the page, ids of its own.

matplotlib is imported inside of functions: it belongs to the extra ``report``.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vogcore.errors import VogcoreError

__all__ = ["BACK", "FAINT", "INK", "LINE", "MUTED", "SERIES", "need_packages", "new_figure", "style", "to_svg"]

# Colours that stand for variables of the page's style sheet. matplotlib writes colours as hexadecimal numbers only;
# these are such that nobody else uses them, and are replaced in the SVG.
INK, MUTED, LINE, BACK, FAINT = "#010203", "#010204", "#010205", "#010206", "#010207"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", BACK: "--back", FAINT: "--faint"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)
}

_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vogcore",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.6,
    "path.simplify": True,
}


def need_packages() -> None:
    """Find out before any work whether charts can be drawn.

    Raises:
        VogcoreError: matplotlib, Jinja or Pillow is missing; the message names the extra.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise VogcoreError(
            f"A report needs the package {error.name}, which is not installed; install vogcore with the extra report "
            "(pip install 'vogcore[report]')."
        ) from None


@contextmanager
def style() -> Iterator[None]:
    """The look of all charts; matplotlib's own defaults and a user's ``matplotlibrc`` have no say."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A font lacks the characters of a class name: the browser has them, since text stays text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(width: float = 6.6, height: float = 3.0) -> Any:
    """A matplotlib figure of that size in inches, without pyplot and its global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def to_svg(figure: Any, ident: str, title: str, description: str) -> str:
    """The figure as an SVG element that can stand in an HTML page beside others.

    Args:
        figure: a matplotlib figure, drawn inside of :func:`style`.
        ident: unique in the page; made the prefix of every id inside.
        title, description: what a screen reader says.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    head, body = re.search(r"<svg ([^>]*)>(.*)</svg>", text, re.DOTALL).groups()  # type: ignore[union-attr]
    view = re.search(r'viewBox="([^"]*)"', head)[1]  # type: ignore[index]
    width = float(view.split()[2])
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    # Inside of tags only: matplotlib escapes < and > in text, but a class may well be called id="x".
    body = re.sub(r"<[^>]+>", lambda found: _own_tag(found[0], ident), body)
    body = re.sub(r"\n\s*", "\n", body)
    labels = f'<title id="{ident}-title">{html.escape(title)}</title>'
    labels += f'<desc id="{ident}-desc">{html.escape(description)}</desc>'
    return (
        f'<svg role="img" aria-labelledby="{ident}-title" aria-describedby="{ident}-desc" viewBox="{view}" '
        f'style="--natural-width: {width:.0f}px">{labels}{body}</svg>'
    )


def _own_tag(tag: str, ident: str) -> str:
    """A tag with the ids, the colours and the font of the page."""
    tag = re.sub(r'\sid="', f' id="{ident}-', tag)  # matplotlib's ids are unique in one file only
    tag = re.sub(r'\s(?:xlink:)?href="#', f' href="#{ident}-', tag)
    tag = tag.replace("url(#", f"url(#{ident}-").replace("xlink:href", "href")
    tag = re.sub(r"font: ((?:[a-z0-9]+ )*[\d.]+px) [^;\"]*", r"font: \1 var(--font)", tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag
