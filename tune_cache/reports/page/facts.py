"""Where the time went, what the data are, and how all of it is repeated: tables of stores.

Conventions
-----------
Seconds of decoders run beside the encoder and are never added to those of stage one.
Memory has three names, GPU, encoding process and decoder, and a column each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tune_cache.errors import printable
from tune_cache.reports.page.marks import LEFT, RIGHT, TOP
from tune_cache.reports.page.model import PageContent, StoreFacts
from tune_cache.reports.page.svg import Frame, Scale, element, nice_ticks, number, place
from tune_cache.reports.page.views import Column, Table
from tune_cache.reports.page.words import figure

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "PARTS", "histogram", "key_table", "store_table", "time_bar", "time_table", "version_table",
]  # fmt: skip

# of the encoder's own clock; decoding runs beside it
PARTS = (("load", "k4"), ("wait", "k1"), ("encode", "k0"), ("write", "k2"))
N_BINS = 24


def _number(ledger: Mapping[str, Any], name: str) -> float | None:
    value = ledger.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _names(stores: Sequence[StoreFacts]) -> list[str]:
    """What tells stores apart: their datasets only if there are several."""
    several = len({store.dataset for store in stores}) > 1
    names = []
    for store in stores:
        note = f" ({store.note})" if store.note else ""
        unit = "" if store.seg == "full" else " s"
        dataset = f"{store.dataset}, " if several else ""
        names.append(printable(f"{dataset}{store.encoder}{note}, {store.seg}{unit}"))
    return names


def _figures(
    name: str, values: Sequence[float | None], tells: str = "", unit: float = 1.0
) -> Column:
    scaled = [None if value is None else value / unit for value in values]
    return Column(
        name=name,
        tells=tells,
        is_number=True,
        cells=tuple((figure(value), value) for value in scaled),
    )


def _counts(name: str, values: Sequence[float | None], tells: str = "") -> Column:
    return Column(
        name=name,
        tells=tells,
        is_number=True,
        cells=tuple(
            ("–" if value is None else f"{value:,.0f}", None if value is None else float(value))
            for value in values
        ),
    )


def _texts(name: str, values: Sequence[str], tells: str = "") -> Column:
    return Column(name=name, tells=tells, cells=tuple((value, None) for value in values))


def _kept(columns: Sequence[Column]) -> Table:
    """Leave out columns that no store has a figure for."""
    shown = [c for c in columns if {text for text, _ in c.cells} - {"–", ""}]
    return Table(columns=tuple(shown or columns[:1]))


def time_table(stores: Sequence[StoreFacts]) -> Table:
    """Seconds and memory of stage one, a row a store."""
    ledgers = [store.ledger for store in stores]

    def of(name: str) -> list[float | None]:
        return [_number(ledger, name) for ledger in ledgers]

    def or_none(name: str) -> list[float | None]:
        return [value or None for value in of(name)]  # 0 bytes: there was no such thing

    devices = []
    for ledger in ledgers:
        found = ledger.get("devices")
        devices.append(", ".join(map(str, found)) if isinstance(found, list) else "")
    return _kept(
        [
            _texts("store", _names(stores)),
            _texts("device", [printable(text) for text in devices]),
            _figures("stage one, s", of("stage_one_seconds"), "load + wait + encode + write"),
            _figures("load", of("load_seconds"), "the encoder"),
            _figures("wait", of("wait_seconds"), "of the encoder, for decoders"),
            _figures("encode", of("encode_seconds")),
            _figures("write", of("write_seconds"), "units and the store"),
            _figures("decode, beside", of("decode_seconds"), "in decoders, beside the encoder"),
            _figures("audio, h", of("audio_seconds"), unit=3600),
            _figures("× real time", of("x_real_time"), "audio / encode"),
            _figures("VRAM, GB", or_none("peak_vram_allocated_bytes"), "in tensors", 1e9),
            _figures("VRAM held, GB", or_none("peak_vram_reserved_bytes"), "by torch", 1e9),
            _figures(
                "RSS, GB", or_none("peak_rss_bytes"), "of the encoding process since its start", 1e9
            ),
            _figures(
                "RSS of a decoder, GB", or_none("peak_decoder_rss_bytes"), "the largest", 1e9
            ),
            _counts("made together", [v if v and v > 1 else None for v in of("n_lengths")],
                "lengths that shared the encoding process, and so its peak RSS",
            ),
            _counts("copied", or_none("n_copied_tracks"), "tracks from other stores, at no cost"
            ),
        ]
    )  # fmt: skip


def time_bar(store: StoreFacts, longest: float) -> Markup | None:
    """Stack the seconds of one store; None where its ledger lacks them."""
    values = [(name, class_, _number(store.ledger, f"{name}_seconds")) for name, class_ in PARTS]
    if not any(value for _, _, value in values):
        return None
    at, parts = 0.0, []
    for name, class_, value in values:
        width = 240 * (value or 0.0) / longest if longest else 0.0
        if width > 0:
            title = element("title", f"{name} {figure(value)} s")
            parts.append(
                element("rect", title, x=at, y=3.0, width=max(width, 0.5), height=20.0,
                        class_=f"fill {class_}")
            )  # fmt: skip
        at += width
    return element("svg", *parts, viewBox="0 0 240 26", class_="inline", aria_hidden="true")


def store_table(stores: Sequence[StoreFacts]) -> Table:
    """What each store holds."""
    return _kept(
        [
            _texts("store", _names(stores)),
            _counts("tracks", [store.n_tracks for store in stores]),
            _counts("failed", [len(store.failed) for store in stores]),
            _counts("segments", [store.n_segments for store in stores]),
            _texts("segments a track", [_span(store.n_segments_by_track) for store in stores],
                   "least, median, most"),
            _figures("audio, min", [sum(store.seconds) / 60 or None for store in stores]),
            _texts("seconds a track", [_span(store.seconds) for store in stores],
                   "least, median, most"),
            _figures("coverage, %", [None if s.coverage is None else 100 * s.coverage
                                     for s in stores], "seconds encoded of seconds present"),
            _figures("on disk, MB", [_or_none(store.n_bytes) for store in stores], unit=1e6),
        ]
    )  # fmt: skip


def _or_none(value: int | None) -> float | None:
    return None if value is None else float(value)


def _span(values: Sequence[float]) -> str:
    """Least, median and most."""
    if not values:
        return ""
    some = sorted(values)
    three = (some[0], some[len(some) // 2], some[-1])
    return " · ".join(f"{v:,}" if isinstance(v, int) else figure(v) for v in three)


def histogram(values: Sequence[float], x_name: str, label: str, *, whole: bool = False) -> Markup:
    """Count values in bins of equal, round width, or each number by itself."""
    low, high = min(values), max(values)
    ticks = nice_ticks(low, high, N_BINS)
    width = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    width = max(width, 1.0) if whole else width
    counts = Counter(math.floor(value / width + 1e-9) for value in values)
    first, last = min(counts), max(counts) + 1
    height = 190.0
    x = Scale(first * width, last * width, LEFT, RIGHT)
    y = Scale(0.0, max(counts.values()) * 1.08, height - 44, TOP)
    bars = []
    for place_, count in sorted(counts.items()):
        left, right = x(place_ * width), x((place_ + 1) * width)
        until = "" if whole and width == 1 else f" to {number((place_ + 1) * width)}"
        title = element("title", f"{number(place_ * width)}{until}: {count} tracks")
        path = f"M{place(left + 0.7)} {place(y(0))}V{place(y(count))}H{place(right - 0.7)}V"
        bars.append(element("path", title, d=f"{path}{place(y(0))}z", class_="fill k0"))
    axis: Scale | list[tuple[float, str]] = x
    if whole and width == 1:
        some = nice_ticks(first, last - 1, 8)
        axis = [(x(v + 0.5), number(v)) for v in some if v == int(v)]
    return Frame(x=axis, y=y, x_name=x_name, y_name="tracks", height=height).draw(label, *bars)


def key_table(stores: Sequence[StoreFacts]) -> Table:
    """What identifies each store: equal keys and digests mean equal vectors."""
    return _kept(
        [
            _texts("store", _names(stores)),
            _texts("folder", [printable(store.name) for store in stores]),
            _texts("spec key", [store.spec_key for store in stores], "of all settings"),
            _texts("collection", [store.collection_digest for store in stores],
                   "of which audio it is about"),
            _texts("content", [store.content_digest for store in stores], "of the vectors"),
        ]
    )  # fmt: skip


def version_table(content: PageContent) -> Table:
    """Packages by the stage they had a part in; several versions are all listed."""
    stages: dict[str, dict[str, dict[str, None]]] = {"stage one": {}, "stage two": {}}

    def add(stage: str, versions: object) -> None:
        for name, version in versions.items() if isinstance(versions, Mapping) else ():
            stages[stage].setdefault(str(name).replace("_", "-"), {})[str(version)] = None

    for store in content.stores:
        add("stage one", store.provenance.get("versions"))
        machine = store.ledger.get("machine")
        add("stage one", machine.get("versions") if isinstance(machine, Mapping) else None)
    for task in content.tasks:
        for runs in task.runs:
            for run in runs:
                add("stage two", run.context.versions)
    names = list(dict.fromkeys(name for some in stages.values() for name in some))
    return _kept(
        [
            _texts("package", [printable(name) for name in names]),
            *(
                _texts(stage, [printable(", ".join(some.get(name, ()))) for name in names])
                for stage, some in stages.items()
            ),
        ]
    )
