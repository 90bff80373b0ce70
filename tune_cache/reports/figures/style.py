"""How figures look, and how they become files that are the same bytes each time.

Conventions
-----------
Colours are those of Okabe and Ito, "Color Universal Design", 2008, which people with
any colour vision tell apart; shapes and dashes say the same as colours do. Fonts are
embedded: TrueType in PDF, outlines in SVG. No date and no name of a machine is
written. Names are data: nothing in them is read as mathematics.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tune_cache.errors import MissingExtraError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DASHES", "MARKERS", "METADATA", "figure_of", "saved", "shortened", "styled"]

PNG_DPI = 300
# without yellow, which is too light for lines on paper
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>"
DASHES = ("-", "--", ":", "-.")
LONGEST_LABEL = 34
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "tune_cache",
    "savefig.facecolor": "white",
}
METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib with our settings; the caller's are put back."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError(
            "figures need matplotlib, which is not installed",
            hint="pip install 'tune-cache[figures]'",
        ) from error
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # names in scripts that the font lacks are drawn as boxes, which is no reason to fail
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure_of(width: float, ratio: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, width * ratio), layout="constrained")


def saved(figure: Figure, form: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=PNG_DPI, metadata=METADATA[form])
    return out.getvalue()


def shortened(name: str, limit: int = LONGEST_LABEL) -> str:
    """A name that is not too long and is no mathematics."""
    text = printable(name)
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text
