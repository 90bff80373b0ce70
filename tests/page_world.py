"""Made-up contents of a page: any number of cells and tracks, any names, a known look."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tune_cache.probes.compare import Comparison
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import Prediction, ProbeResult
from tune_cache.probes.verdicts import Entry, choose_reference, judge
from tune_cache.reports.page import tracks as room
from tune_cache.reports.page.model import (
    MapTrack,
    PageContent,
    StoreFacts,
    TaskResults,
    TrackMap,
)
from tune_cache.reports.results import RunContext, SavedRun

NAN = math.nan
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "</style><svg onload=alert(3)>",
    '" onmouseover="alert(4)',
    "' autofocus onfocus='alert(5)",
    "{{ 7 * 7 }} {% raw %}",
    "line\nbreak\r\ttab\x00nul\x1b[31m",
    "lone \udcff surrogate",
    "\u202eright to left\u2028paragraph",
    "--><!-- <!--<script>",
    "javascript:alert(6)",
    "&lt;b&gt; &amp; https://example.org/?a=1&b=2",
    "a" * 300,
    "",
)
CLASSES = ("blues", "disco", "jazz", "metal", "pop")
TARGETS = ("arousal", "valence")


def run_of(
    number=0, *, dataset="world", task="genre", kind="multiclass", encoder="mel", note="",
    seg="10", aggregation="mean", probe="logistic", layer="6", layer_asked="6", seed=1234,
    val=0.7, test=0.7, cost=None, flags=(), classes=CLASSES, **changed,
):  # fmt: skip
    """One result, without predictions unless they are given."""
    metric = {"multiclass": "accuracy", "regression": "r2", "multilabel": "roc_auc"}[kind]
    span = {"low": test - 0.1, "high": test + 0.1}
    others = {"multiclass": ("macro_f1",), "regression": ("r2_arousal", "r2_valence")}
    scores = {
        "val": {metric: Score(value=val, low=NAN, high=NAN)},
        "test": {metric: Score(value=test, **span)}
        | {name: Score(value=test, **span) for name in others.get(kind, ())},
    }
    fields = {
        "task": task,
        "kind": kind,
        "aggregation": aggregation,
        "probe": probe,
        "layer_asked": layer_asked,
        "layer": layer,
        "params": {"C": 0.1},
        "grid": ({"C": 0.1},),
        "seed": seed,
        "metric": metric,
        "scores": scores,
        "n": {"train": 60, "val": 20, "test": 20},
        "n_classes": len(classes),
        "n_features": 128,
        "share_one_segment": 0.0,
        "flags": flags,
        "seconds": {"read": 0.1, "fit": 0.5 + number / 100, "predict": 0.01},
        "classes": classes if kind != "regression" else (),
        "targets": TARGETS if kind == "regression" else (),
    }
    ledger = {
        "stage_one_seconds": 20.0, "load_seconds": 1.0, "wait_seconds": 2.0,
        "encode_seconds": 16.0, "write_seconds": 1.0, "decode_seconds": 5.0,
        "audio_seconds": 3600.0, "peak_rss_bytes": 2_000_000_000, "x_real_time": 225.0,
        "devices": ["cpu"],
    }  # fmt: skip
    return SavedRun(
        run_id=number + 1,
        created="2026-01-01T00:00:00+00:00",
        context=RunContext(
            dataset=dataset, encoder=encoder, seg=seg, note=note,
            store=f"seg{seg}-{encoder}.zarr", spec_key=f"key-{encoder}-{seg}",
            content_digest=f"content-{encoder}-{seg}", cost=ledger if cost is None else cost,
            versions={"tune_cache": "0.1.0", "python": "3.11"},
        ),
        result=ProbeResult(**fields | changed),
    )  # fmt: skip


def comparison_of(difference, *, n=20, n_groups=20, p=0.5, **changed):
    """What two cells would say, without working it out."""
    fields = {
        "metric": "accuracy", "n": n, "n_groups": n_groups, "n_seeds": 1, "first": 0.7,
        "second": 0.7 - difference, "difference": difference, "low": difference - 0.05,
        "high": difference + 0.05, "loss_bound": 0.04 - difference, "gain_bound": 0.04 + difference,
        "p": p, "test": "mcnemar", "n_differ": 3, "smallest": 0.12,
    }  # fmt: skip
    return Comparison(**fields | changed)


def results_of(cells, *, margin=0.02, **changed):
    """A task's results from cells, each a list of runs, with made-up comparisons."""
    cells = [tuple(some) for some in cells]
    entries = [
        Entry(
            results=tuple(run.result for run in some),
            segs=(some[0].context.seg,),
            aggregations=(some[0].result.aggregation,),
        )
        for some in cells
    ]
    reference = choose_reference(entries)
    best = _test(entries[reference])
    comparisons = [
        None if place == reference else comparison_of(_test(entry) - best)
        for place, entry in enumerate(entries)
    ]
    first = cells[0][0]
    return TaskResults(
        dataset=first.context.dataset,
        task=first.result.task,
        verdicts=tuple(
            judge(entries, [_score(e) for e in entries], comparisons, reference, margin=margin)
        ),
        runs=tuple(cells),
        margin=margin,
        **changed,
    )


def _score(entry):
    return entry.results[0].scores["test"][entry.metric]


def _test(entry):
    return _score(entry).value


def predictions_of(rng, names, kind="multiclass", classes=CLASSES):
    """Test predictions, two of three classes right."""
    found = []
    for name in names:
        if kind == "multiclass":
            truth = str(rng.choice(classes))
            prediction = truth if rng.random() < 0.67 else str(rng.choice(classes))
        elif kind == "regression":
            values = rng.standard_normal(2)
            truth = tuple(values.tolist())
            prediction = tuple((0.7 * values + 0.3 * rng.standard_normal(2)).tolist())
        else:
            truth = tuple((rng.random(len(classes)) < 0.3).astype(float).tolist())
            prediction = tuple(rng.random(len(classes)).tolist())
        found.append(
            Prediction(track_id=name, split="test", group=name, truth=truth, prediction=prediction)
        )
    return tuple(found)


def confusion_of(predictions, classes):
    """Counts of a made-up matrix."""
    counts = [[0] * len(classes) for _ in classes]
    for item in predictions:
        counts[classes.index(item.truth)][classes.index(item.prediction)] += 1
    return tuple(map(tuple, counts))


def map_of(rng, names, *, task="genre", kind="multiclass", classes=CLASSES, weights=False, dim=16):
    """A map of random vectors around a centre a class."""
    labels = rng.integers(0, len(classes), len(names))
    rows = (
        rng.standard_normal((len(names), dim))
        + 2 * rng.standard_normal((len(classes), dim))[labels]
    )
    axes, share = room.principal_axes(rows)
    near = room.nearest(rows)
    splits = np.array(["train", "train", "train", "val", "test"])[np.arange(len(names)) % 5]
    tracks = []
    for place, name in enumerate(names):
        held_out = splits[place] != "train"
        label = classes[labels[place]]
        tracks.append(
            MapTrack(
                track_id=name,
                split=str(splits[place]),
                truth=label if kind == "multiclass" else "arousal 0.10, valence 0.20",
                prediction=label if held_out else "",
                is_right=bool(place % 3) if held_out and kind == "multiclass" else None,
                error=float(place % 7) / 7 if held_out and kind != "multiclass" else None,
                value=float(rows[place, 0]) if kind == "regression" else None,
                n_segments=3,
                seconds=30.0,
                neighbours=near[place],
                weights=(0.2, 0.5, 0.3) if weights and place % 2 else (),
            )
        )
    return TrackMap(
        dataset="world", task=task, kind=kind, caption="Mean vectors of mel.", tracks=tuple(tracks),
        projections={"PCA": tuple((float(x), float(y)) for x, y in axes)}, kept={"PCA": share},
        weights_from="attention" if weights else "",
    )  # fmt: skip


def store_of(run, n_tracks=100, **changed):
    """Facts of a run's store."""
    context = run.context
    counts = tuple(1 + number % 4 for number in range(n_tracks))
    fields = {
        "name": context.store, "encoder": context.encoder, "note": context.note,
        "seg": context.seg, "dataset": context.dataset, "content_digest": context.content_digest,
        "spec_key": context.spec_key, "collection_digest": "c0ffee", "n_bytes": 5_000_000,
        "n_tracks": n_tracks, "n_segments": sum(counts), "coverage": 0.98,
        "seconds": tuple(20.0 + number % 30 for number in range(n_tracks)),
        "n_segments_by_track": counts, "ledger": context.cost,
        "provenance": {"versions": {"torch": "2.14.1"}},
    }  # fmt: skip
    return StoreFacts(**fields | changed)


def content_of(
    n_cells=12, n_tracks=60, *, kind="multiclass", names=None, classes=CLASSES, nan=False,
    encoders=("mel", "muq-nano"), weights=False, seed=0, **changed,
):  # fmt: skip
    """A whole page: a grid of ``n_cells``, a map of ``n_tracks``.

    Parameters
    ----------
    names
        Of tracks; numbered ones if None.
    nan
        Every third score undefined.
    """
    rng = np.random.default_rng(seed)
    names = [f"track {number:05}" for number in range(n_tracks)] if names is None else list(names)
    grid = [
        (encoder, seg, aggregation, str(layer))
        for layer in range(60)
        for encoder in encoders
        for seg in ("10", "30", "full")
        for aggregation in ("mean", "max", "concat")
    ][:n_cells]
    cells = []
    for number, (encoder, seg, aggregation, layer) in enumerate(grid):
        undefined = nan and number % 3 == 0
        cells.append(
            [
                run_of(
                    number, kind=kind, encoder=encoder, seg=seg, aggregation=aggregation,
                    note="random weights" if encoder == "muq-nano" else "", layer=layer,
                    layer_asked=layer, val=NAN if undefined else float(rng.uniform(0.4, 0.8)),
                    test=NAN if undefined else float(rng.uniform(0.4, 0.8)), classes=classes,
                    flags=("one-segment: mean ≡ max ≡ concat, std = 0",) if seg == "full" else (),
                )
            ]
        )  # fmt: skip
    tasks = ()
    if cells:
        found = results_of(cells)
        place = found.reference
        some = predictions_of(rng, names[::5], kind, classes)
        extra = {"predictions": some}
        if kind == "multiclass":
            extra["confusion"] = confusion_of(some, classes)
        run = found.runs[place][0]
        filled = replaced(run, **extra)
        runs = (*found.runs[:place], (filled,), *found.runs[place + 1 :])
        tasks = (replace_runs(found, runs),)
    by_store = {some[0].context.content_digest: some[0] for some in cells}
    fields = {
        "dataset": "world",
        "created": "2026-01-01 00:00 UTC",
        "version": "0.1.0",
        "command": "tune report world --html page.html",
        "tasks": tasks,
        "stores": tuple(store_of(run, max(len(names), 1)) for run in by_store.values()),
        "maps": (map_of(rng, names, kind=kind, classes=classes, weights=weights),)
        if len(names) > 1
        else (),
        "splits": {"world": {"train": 60, "val": 20, "test": 20}},
        "leaks": {("world", "genre"): ()},
    }
    return PageContent(**fields | changed)


def replaced(run, **changed):
    """A run with another result."""
    return replace(run, result=replace(run.result, **changed))


def replace_runs(found, runs):
    """The same judgement of other runs."""
    return replace(found, runs=runs)


def hostile_content():
    """Every name of every kind is hostile."""
    bad = HOSTILE[0]
    names = [f"{name}{number}" for number, name in enumerate(HOSTILE * 3)]
    content = content_of(9, names=names, classes=HOSTILE[:5], encoders=(HOSTILE[1],))
    (found,) = content.tasks
    runs = tuple(
        tuple(
            replace(
                run,
                context=replace(run.context, dataset=bad, note=HOSTILE[3], store=HOSTILE[2]),
                result=replace(
                    run.result, task=HOSTILE[4], probe=HOSTILE[5], flags=HOSTILE[:4],
                    warnings=HOSTILE[4:8], aggregation_options={HOSTILE[6]: HOSTILE[7]},
                    params={HOSTILE[8]: HOSTILE[9]},
                ),
            )
            for run in some
        )
        for some in found.runs
    )  # fmt: skip
    stores = tuple(
        replace(
            store, name=HOSTILE[2], dataset=bad, failed=dict.fromkeys(HOSTILE, HOSTILE[1]),
            ledger=dict(store.ledger, devices=list(HOSTILE)), note=HOSTILE[3],
            provenance={"versions": dict.fromkeys(HOSTILE, HOSTILE[0])},
        )
        for store in content.stores
    )  # fmt: skip
    return replace(
        content,
        dataset=bad,
        command=HOSTILE[10],
        tasks=(replace(found, dataset=bad, task=HOSTILE[4], runs=runs, notes=HOSTILE),),
        stores=stores,
        splits={bad: {HOSTILE[1]: 3}},
        leaks={(bad, HOSTILE[4]): HOSTILE},
        missing=HOSTILE,
        given={bad: HOSTILE[3]},
    )
