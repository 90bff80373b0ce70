"""Drawings of a map of tracks, and what a click on it is answered with.

Conventions
-----------
Dots of one colour are one path, so that thousands cost little; a reader's click finds
the nearest dot by the coordinates in :attr:`MapView.data`, in units of the drawing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_cache.reports.page.model import MapTrack, TrackMap
from tune_cache.reports.page.svg import N_COLOURS, WIDTH, dots, element, place, scale_of

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Key", "MapDrawing", "MapView", "map_view"]

HEIGHT = 400.0
MARGIN = 14.0
MANY = 600
N_STEPS = 5


@dataclass(frozen=True, slots=True)
class Key:
    """One kind of dot: its class, what it means, how many there are."""

    class_: str
    name: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapDrawing:
    """One projection in one colouring."""

    projection: str
    colouring: str
    svg: Markup
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapView:
    """A map as a page shows it.

    Parameters
    ----------
    colourings
        Keys and names of what may be chosen.
    data
        Columns for the page's script.
    """

    caption: str
    drawings: tuple[MapDrawing, ...]
    colourings: tuple[tuple[str, str], ...]
    projections: tuple[str, ...]
    data: Mapping[str, Any]


Coloured = Callable[[MapTrack], tuple[int, str, str]]  # order, class, name


def map_view(found: TrackMap) -> MapView:
    """Draw a map in every projection and colouring that it has."""
    colourings = _colourings(found)
    drawings, coordinates = [], {}
    for name, points in found.projections.items():
        x = scale_of([p[0] for p in points], MARGIN, WIDTH - MARGIN)
        y = scale_of([p[1] for p in points], HEIGHT - MARGIN, MARGIN)
        drawn = [(x(p[0]), y(p[1])) for p in points]
        coordinates[name] = [round(value, 1) for point in drawn for value in point]
        for key, (_, coloured) in colourings.items():
            drawings.append(_drawing(found, name, key, drawn, coloured))
    return MapView(
        caption=found.caption,
        drawings=tuple(drawings),
        colourings=tuple((key, name) for key, (name, _) in colourings.items()),
        projections=tuple(found.projections),
        data={"points": coordinates, **_columns(found)},
    )


def _drawing(
    found: TrackMap,
    projection: str,
    colouring: str,
    drawn: Sequence[tuple[float, float]],
    coloured: Coloured,
) -> MapDrawing:
    groups: dict[tuple[int, str, str], list[tuple[float, float]]] = {}
    for track, point in zip(found.tracks, drawn, strict=True):
        groups.setdefault(coloured(track), []).append(point)
    many = " many" if len(drawn) > MANY else ""
    order = sorted(groups)
    # grey first, so that it never covers what has a colour
    paths = [
        element("path", d=dots(groups[kind]), class_=f"{kind[1]}{many}", data_key=number)
        for number, kind in sorted(enumerate(order), key=lambda item: "kx" not in item[1][1])
    ]
    label = (
        f"Map of {len(drawn)} tracks by {projection}, coloured by {colouring}. "
        "The field below finds a track by name."
    )
    return MapDrawing(
        projection=projection,
        colouring=colouring,
        svg=element(
            "svg", *paths, class_="plot map", role="img", aria_label=label,
            viewBox=f"0 0 {WIDTH} {place(HEIGHT)}",
        ),
        keys=tuple(Key(kind[1], kind[2], len(groups[kind])) for kind in order),
    )  # fmt: skip


def _colourings(found: TrackMap) -> dict[str, tuple[str, Coloured]]:
    """What dots can be coloured by, the label first."""
    choices: dict[str, tuple[str, Coloured]] = {}
    if found.kind == "multiclass":
        choices["label"] = "label", _by_label(found.tracks)
    elif any(track.value is not None for track in found.tracks):
        of = found.coloured_by or "label"
        choices["label"] = of, _by_steps(found.tracks, lambda track: track.value, "no label")
    if any(track.is_right is not None for track in found.tracks):
        choices["error"] = "error", _by_right
    elif any(track.error is not None for track in found.tracks):
        choices["error"] = (
            "error",
            _by_steps(found.tracks, lambda track: track.error, "not predicted"),
        )
    choices["split"] = "split", _by_split
    return choices


def _by_label(tracks: Sequence[MapTrack]) -> Coloured:
    """Eight colours, as dots and again as squares; the rarest labels beyond are grey."""
    names = [name for name, _ in Counter(t.truth for t in tracks if t.truth).most_common()]
    kept = sorted(names[: 2 * N_COLOURS])
    places = {name: number for number, name in enumerate(kept)}

    def coloured(track: MapTrack) -> tuple[int, str, str]:
        number = places.get(track.truth)
        if number is None:
            return 99, "dots kx", "other labels" if track.truth else "no label"
        shape = "dots" if number < N_COLOURS else "squares"
        return number, f"{shape} k{number % N_COLOURS}", track.truth

    return coloured


def _by_right(track: MapTrack) -> tuple[int, str, str]:
    if track.is_right is None:
        return 2, "dots kx", "not predicted"
    return (0, "dots k0", "right") if track.is_right else (1, "squares k1", "wrong")


def _by_split(track: MapTrack) -> tuple[int, str, str]:
    known = {
        "train": (0, "dots k0", "train"),
        "val": (1, "squares k4", "val"),
        "test": (2, "squares k1", "test"),
    }
    return known.get(track.split, (3, "dots kx", track.split))


def _by_steps(
    tracks: Sequence[MapTrack], value_of: Callable[[MapTrack], float | None], absent: str
) -> Coloured:
    """Five steps with as many tracks each, from pale to strong."""
    known = sorted(
        value for t in tracks if (value := value_of(t)) is not None and math.isfinite(value)
    )
    bounds = [known[min(len(known) - 1, len(known) * k // N_STEPS)] for k in range(1, N_STEPS)]
    ends = [known[0], *bounds, known[-1]]

    def coloured(track: MapTrack) -> tuple[int, str, str]:
        value = value_of(track)
        if value is None or not math.isfinite(value):
            return 99, "dots kx", absent
        step = sum(value > bound for bound in bounds)
        return step, f"dots s{step}", f"{ends[step]:.2f} to {ends[step + 1]:.2f}"

    return coloured


def _columns(found: TrackMap) -> dict[str, Any]:
    """Everything a click shows, a list each; what no track has is left out."""
    tracks = found.tracks
    columns: dict[str, Any] = {
        "id": [track.track_id for track in tracks],
        "split": [track.split for track in tracks],
        "truth": [track.truth for track in tracks],
        "prediction": [track.prediction for track in tracks],
        "error": [None if t.error is None else _rounded(t.error) for t in tracks],
        "segments": [track.n_segments for track in tracks],
        "seconds": [_rounded(track.seconds) for track in tracks],
        "near": [[n for n, _ in track.neighbours] for track in tracks],
        "cosine": [[round(value, 3) for _, value in track.neighbours] for track in tracks],
    }
    if any(track.weights for track in tracks):
        columns["weights"] = [[_rounded(w) for w in track.weights] for track in tracks]
        columns["weights_from"] = found.weights_from
    return columns


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
