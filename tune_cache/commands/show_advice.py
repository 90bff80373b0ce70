"""What ``tune recommend`` found, as text for people and as one JSON object for programs."""

from __future__ import annotations

from tune_cache.commands.recommend import Recommendation
from tune_cache.commands.show import warn, width
from tune_cache.reports.recommendations import PER_HOUR, advice_rows, advice_text
from tune_cache.reports.tables import json_table

__all__ = ["recommendation"]


def recommendation(found: Recommendation, *, as_json: bool) -> str:
    """Blocks of text, a task after the other; what the data cannot tell stands in both forms."""
    if as_json:
        said = [text for advice in found.advice.values() for text in advice.statements]
        return json_table(
            [row for advice in found.advice.values() for row in advice_rows(advice)],
            command="recommend",
            dataset=found.dataset,
            warnings=[*found.warnings, *dict.fromkeys(said)],
        )
    warn(found.warnings)
    seconds_are = "s as published" if found.published else PER_HOUR
    return "\n\n".join(
        advice_text(advice, width=width(), seconds_are=seconds_are)
        for advice in found.advice.values()
    )
