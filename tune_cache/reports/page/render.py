"""From contents to one HTML text that asks the network for nothing.

Conventions
-----------
Every text goes through Jinja's escaping, whatever it is; the page's policy allows the
one script and the one style sheet whose hashes it states, and no request at all, so that
even markup that slipped through could not run. Data for the script is JSON in which
``<``, ``>`` and ``&`` are escaped. The drawings and tables are there without the script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tune_cache.errors import printable
from tune_cache.probes.result import without_nan
from tune_cache.reports.cost import ledger_rows
from tune_cache.reports.page import facts, predictions
from tune_cache.reports.page.costs import cost_charts
from tune_cache.reports.page.curves import layer_curves, length_curves, line_chart
from tune_cache.reports.page.maps import map_view
from tune_cache.reports.page.marks import Keys
from tune_cache.reports.page.model import PageContent, StoreFacts, TaskResults
from tune_cache.reports.page.rows import (
    Row,
    cell_rows,
    encoder_name,
    glance,
    short_titles,
    title_of,
)
from tune_cache.reports.page.views import cell_table, differences, published_table
from tune_cache.reports.page.words import commands_of, details, headline, metric_name, summary

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["json_for_script", "render_page"]

ASSETS = "assets"
N_TINTS = 5


def render_page(content: PageContent) -> str:
    """Draw the page.

    Returns
    -------
    HTML that is valid UTF-8 whatever the names in it
    """
    script, style = _asset("page.js"), _asset("page.css")
    stores = {store.content_digest: store for store in content.stores}
    tasks, cells = [], []
    for number, found in enumerate(content.tasks):
        rows = cell_rows(found, stores)
        tasks.append(_task(number, found, rows, content))
        cells.append([[title_of(row), details(row)] for row in rows])
    views = [map_view(tracks) for tracks in content.maps]
    data = {"cells": cells, "maps": [view.data for view in views]}
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            content=content,
            title=content.dataset or "all datasets",
            tasks=tasks,
            maps=[
                {"of": tracks, "view": view}
                for tracks, view in zip(content.maps, views, strict=True)
            ],
            facts=_facts(content),
            commands=_commands(content, stores),
            policy=_policy(script, style),
            data=json_for_script(data),
            script=_trusted(script),
            style=_trusted(style),
        )
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath(ASSETS, name).read_text("utf-8")


def _trusted(text: str) -> Any:
    """Our own script or style sheet, which is no data."""
    from markupsafe import Markup

    return Markup(text)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        """Control characters and lone surrogates are replaced, as in the terminal."""
        return (
            value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)
        )

    return Environment(
        loader=PackageLoader("tune_cache.reports.page", ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(script: str, style: str) -> str:
    """Content security policy: this script, this style, nothing from anywhere."""

    def hash_of(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return (
        f"default-src 'none'; script-src {hash_of(script)}; style-src {hash_of(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def json_for_script(value: Any) -> Any:
    r"""Write JSON that no HTML parser takes for markup; undefined numbers are null.

    Examples
    --------
    >>> str(json_for_script({"name": "</script>"}))
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(without_nan(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _trusted(text)


def _task(
    number: int, found: TaskResults, rows: list[Row], content: PageContent
) -> Mapping[str, Any]:
    """Everything of one task, as the template wants it."""
    leaks = content.leaks.get((found.dataset, found.task), ())
    reference = found.runs[found.reference][0].result
    keys = Keys.of(rows)
    lengths, layers = length_curves(rows), layer_curves(found, rows)
    return {
        "number": number,
        "dataset": found.dataset,
        "name": found.task,
        "result": reference,
        "chosen": rows[found.reference],
        "summary": summary(rows, leaks),
        "leaks": leaks,
        "notes": found.notes,
        "n_few_shot": len(found.few_shot),
        "glances": glance(rows),
        "metric": metric_name(reference.metric),
        "headline": headline(rows),
        "tint": _tints(rows),
        "table": cell_table(rows),
        "published": published_table(found.dataset, rows),
        "costs": cost_charts(rows, keys),
        "legend": keys.legend(),
        "lengths": [(c, line_chart(c, lengths)) for c in lengths],
        "layers": [(c, line_chart(c, layers)) for c in layers],
        "differences": differences(rows),
        "confusion": predictions.confusion_of(reference),
        "confused": predictions.most_confused(reference),
        "scatters": predictions.predicted_against_true(reference),
        "plane": predictions.plane(reference),
        "tags": predictions.tag_table(reference),
        "short_title": short_titles(rows),
        "random": list(dict.fromkeys(encoder_name(row) for row in rows if row["note"])),
        "title_of": title_of,
    }


def _tints(rows: list[Row]) -> dict[int, int]:
    """Step of tint of each cell by its test score, 0 the palest."""
    values = [row["test"] for row in rows if row["test"] == row["test"]]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    return {
        row["number"]: round(N_TINTS * (row["test"] - low) / (high - low))
        if high > low and row["test"] == row["test"]
        else 0
        for row in rows
    }


def _facts(content: PageContent) -> Mapping[str, Any]:
    """Time, data and keys of all stores."""
    stores = content.stores
    longest = max(
        (sum(store.ledger.get(f"{name}_seconds") or 0.0 for name, _ in facts.PARTS)
         for store in stores), default=0.0,
    )  # fmt: skip
    lengths = {}
    for store in stores:
        if len(set(store.seconds)) > 1 and store.dataset not in lengths:
            label = f"Histogram of the lengths of {len(store.seconds)} tracks of {store.dataset}"
            lengths[store.dataset] = facts.histogram(store.seconds, "seconds", label)
    segments = []
    for store in stores:
        counts = store.n_segments_by_track
        if len(set(counts)) > 1:
            label = f"Histogram of segments a track at {store.seg} s, {len(counts)} tracks"
            drawn = facts.histogram(counts, f"segments of {store.seg} s", label, whole=True)
            segments.append((store, drawn))
    return {
        "time": facts.time_table(stores) if stores else None,
        "bars": [facts.time_bar(store, longest) for store in stores],
        "parts": facts.PARTS,
        "stores": facts.store_table(stores) if stores else None,
        "ledgers": [(store, ledger_rows(store.ledger)) for store in stores if store.ledger],
        "lengths": lengths,
        "segments": _distinct(segments),
        "identity": facts.key_table(stores) if stores else None,
        "versions": facts.version_table(content) if content.tasks else None,
    }


def _distinct(drawn: list[tuple[StoreFacts, Any]]) -> list[tuple[StoreFacts, Any]]:
    """One histogram a dataset and length: encoders cut alike."""
    found = {(store.dataset, store.seg): (store, svg) for store, svg in reversed(drawn)}
    return list(reversed(found.values()))


def _commands(content: PageContent, stores: Mapping[str, StoreFacts]) -> list[str]:
    """All that makes this page again, from audio."""
    lines: dict[str, None] = {}
    for found in content.tasks:
        rows = cell_rows(found, stores)
        specs = {runs[0].context.spec_key: runs[0].context.spec for runs in found.runs if runs}
        given = content.given.get(found.dataset, found.dataset)
        lines |= dict.fromkeys(commands_of(given, rows, specs))
    extracts = [line for line in lines if line.startswith("tune extract")]
    return [*extracts, *(line for line in lines if line not in extracts), content.command]
