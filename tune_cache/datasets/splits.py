"""Draw train, validation and test splits: stratified, grouped, by seed.

Conventions
-----------
Pure functions on ids, groups and strata; nothing depends on the order of the
input, the file system or Python's hash seed. A stratum is anything of which each
split should get its share: a class, a tag, a quantile bin of a target.
The rule is Webster's apportionment, made greedily over groups, as in
Sechidis et al., "On the Stratification of Multi-label Data", ECML 2011.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tune_cache.datasets.base import SPLITS, Kind
from tune_cache.errors import ManifestError, UsageError
from tune_cache.specs import sha256_text

__all__ = ["FRACTIONS", "draw_splits", "strata_of"]

FRACTIONS = (0.6, 0.2, 0.2)
MAX_BINS = 5
TRACKS_PER_BIN = 5  # fewer could not be shared among three splits


def strata_of(labels: Mapping[str, Any], kind: Kind) -> dict[str, tuple[Hashable, ...]]:
    """Say of which strata each track is, from the labels of one task.

    Parameters
    ----------
    labels
        By track id, in the form of :class:`~tune_cache.datasets.base.Track`.

    Returns
    -------
    By track id: the class; the tags; or one quantile bin for each target, where
    equal values share a bin and bins hold about as many tracks each.

    Examples
    --------
    >>> strata_of({"a": "rock", "b": "jazz"}, "multiclass")
    {'a': ('rock',), 'b': ('jazz',)}
    """
    if kind == "multiclass":
        return {track_id: (label,) for track_id, label in labels.items()}
    if kind == "multilabel":
        return {track_id: tuple(tags) for track_id, tags in labels.items()}
    n_targets = len(next(iter(labels.values()), ()))
    n_bins = max(1, min(MAX_BINS, len(labels) // TRACKS_PER_BIN))
    edges = []
    for target in range(n_targets):
        ordered = sorted(value[target] for value in labels.values())
        edges.append([ordered[len(ordered) * cut // n_bins] for cut in range(1, n_bins)])
    return {
        track_id: tuple(
            (target, bisect_right(edges[target], value[target])) for target in range(n_targets)
        )
        for track_id, value in labels.items()
    }


def draw_splits(
    strata: Mapping[str, Sequence[Hashable]],
    groups: Mapping[str, str],
    *,
    seed: int = 1234,
    fractions: tuple[float, float, float] = FRACTIONS,
) -> dict[str, str]:
    """Assign every track to a split so that no group straddles two.

    Larger groups are placed first, equal ones in an order drawn by the seed.
    A group goes where it raises least the sum over splits and strata of
    n² / share, which is minimal when every split has its share of every stratum;
    among equals, where the overall shares need it. The only track of a class
    is thus in train.

    Parameters
    ----------
    strata
        By track id; a track may be of none or of several.
    groups
        By track id; every track of ``strata`` has one.
    fractions
        Of train, val and test; each positive.

    Returns
    -------
    By track id: the split. Every split has at least one group.

    Raises
    ------
    ManifestError
        If there are fewer than three groups.

    Examples
    --------
    >>> ids = [f"track{i}" for i in range(10)]
    >>> drawn = draw_splits({i: ("rock",) for i in ids}, {i: i for i in ids})
    >>> sorted(drawn.values())
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train', 'val', 'val']
    """
    if min(fractions) <= 0:
        raise UsageError(f"split fractions are {fractions!r}, expected three positive numbers")
    members: dict[str, list[str]] = {}
    for track_id in strata:
        members.setdefault(groups[track_id], []).append(track_id)
    if len(members) < len(SPLITS):
        raise ManifestError(
            f"{len(strata)} tracks in {len(members)} groups cannot fill the splits "
            f"{', '.join(SPLITS)}",
            hint="a group never straddles splits: give at least three, or group less coarsely",
        )
    totals: Counter[Hashable] = Counter()
    counts: dict[str, Counter[Hashable]] = {}
    for group, ids in members.items():
        counts[group] = Counter(key for track_id in ids for key in strata[track_id])
        counts[group][_ALL] = len(ids)
        totals += counts[group]
    shares = {split: part / sum(fractions) for split, part in zip(SPLITS, fractions, strict=True)}
    filled: dict[str, Counter[Hashable]] = {split: Counter() for split in SPLITS}
    order = sorted(
        members, key=lambda group: (-len(members[group]), sha256_text(f"{seed}\n{group}"))
    )

    def rise(split: str, group: str) -> tuple[float, float]:
        costs = {
            key: n * (filled[split][key] + n / 2) / (totals[key] * shares[split])
            for key, n in counts[group].items()
        }
        overall = costs.pop(_ALL)
        return round(sum(costs.values()), 9), round(overall, 9)  # ties must be ties

    drawn: dict[str, str] = {}
    for position, group in enumerate(order):
        empty = [split for split in SPLITS if not filled[split]]
        choices = empty if len(order) - position <= len(empty) else SPLITS
        best = min(choices, key=lambda split: rise(split, group))
        filled[best] += counts[group]
        drawn.update(dict.fromkeys(members[group], best))
    return drawn


_ALL = ("\0all",)  # the stratum of every track, which keeps the overall proportions
