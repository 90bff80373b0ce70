"""What is known of published datasets, and of the demo, before a file is read.

Conventions
-----------
Frozen data. Tasks, layouts and metrics are those of MARBLE v2's MuQ configs
(https://github.com/a43992899/MARBLE, ``configs/probe.MuQ.*.yaml``), which expect
``data/EMO/EMO.train.jsonl`` and the like; the first metric is the one that choices
are made by. NSynth and VocalSet are tasks of MARBLE v1 without published
manifests: their records are expected to keep the names that the datasets' own
metadata have. Citations are the datasets' own papers; licences what the
publishers state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tune_cache.datasets.base import Task

__all__ = ["CATALOG", "DEMO", "CatalogEntry"]

DEMO = "demo"
TAGGING = ("roc_auc", "ap")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """What is known of a dataset before its files are read.

    Parameters
    ----------
    prefix
        Of its manifests in MARBLE's layout; empty if it is not published there.
    hub
        Repository of audio and manifests on the Hugging Face hub.
    tasks
        Used where the labels are of that kind.
    """

    name: str
    tasks: tuple[Task, ...]
    prefix: str = ""
    hub: str = ""
    encoder: str = "muq"
    licence: str = ""
    citation: str = ""


def _marble(folder: str, task: Task, licence: str, citation: str) -> CatalogEntry:
    return CatalogEntry(
        name=task.name,
        tasks=(task,),
        prefix=f"data/{folder}/{task.name}",
        hub=f"m-a-p/{folder}",
        licence=licence,
        citation=citation,
    )


def _tagging(name: str) -> CatalogEntry:
    return _marble(
        "MTG",
        Task(name=name, label="label", kind="multilabel", metrics=TAGGING),
        "audio: the artists' Creative Commons licences; metadata CC BY-NC-SA 4.0",
        "Bogdanov et al., The MTG-Jamendo Dataset for Automatic Music Tagging, ML4MD at ICML 2019",
    )


_ENTRIES = (
    CatalogEntry(
        name=DEMO,
        tasks=(
            Task(name="style", label="label", kind="multiclass"),
            Task(
                name="emotion", label="emotion", kind="regression", targets=("arousal", "valence")
            ),
        ),
        encoder="muq-nano",
        licence="CC0-1.0",
        citation="composed and rendered by tune_cache; not recorded music",
    ),
    _marble(
        "EMO",
        Task(
            name="EMO",
            label="label",
            kind="regression",
            targets=("arousal", "valence"),
            metrics=("r2", "r2_each"),
        ),
        "audio: Creative Commons, from the Free Music Archive; see the publisher",
        "Soleymani et al., 1000 Songs for Emotional Analysis of Music, CrowdMM 2013",
    ),
    _marble(
        "GTZAN",
        Task(
            name="GTZANGenre",
            label="label",
            kind="multiclass",
            metrics=("accuracy", "macro_f1"),
        ),
        "none stated by its author",
        "Tzanetakis and Cook, Musical Genre Classification of Audio Signals, IEEE TSAP 10(5), 2002",
    ),
    _marble(
        "GS",
        Task(name="GS", label="label", kind="multiclass", metrics=("weighted_key", "accuracy")),
        "audio: commercial previews; see the publisher",
        "Knees et al., Two Data Sets for Tempo Estimation and Key Detection in Electronic Dance "
        "Music Annotated from User Corrections, ISMIR 2015",
    ),
    _marble(
        "MTT",
        Task(name="MTT", label="label", kind="multilabel", metrics=TAGGING),
        "audio: CC BY-NC-SA, Magnatune; see the publisher",
        "Law et al., Evaluation of Algorithms Using Games: The Case of Music Tagging, ISMIR 2009",
    ),
    _tagging("MTGGenre"),
    _tagging("MTGInstrument"),
    _tagging("MTGMood"),
    _tagging("MTGTop50"),
    CatalogEntry(
        name="NSynth",
        tasks=(
            Task(name="pitch", label="pitch", kind="multiclass", metrics=("accuracy",)),
            Task(
                name="instrument",
                label="instrument_family_str",
                kind="multiclass",
                metrics=("accuracy", "macro_f1"),
            ),
        ),
        prefix="data/NSynth/NSynth",
        licence="CC BY 4.0",
        citation="Engel et al., Neural Audio Synthesis of Musical Notes with WaveNet "
        "Autoencoders, ICML 2017",
    ),
    CatalogEntry(
        name="VocalSet",
        tasks=(
            Task(name="singer", label="singer", kind="multiclass", metrics=("accuracy",)),
            Task(
                name="technique",
                label="technique",
                kind="multiclass",
                metrics=("accuracy", "macro_f1"),
            ),
        ),
        prefix="data/VocalSet/VocalSet",
        licence="CC BY 4.0",
        citation="Wilkins et al., VocalSet: A Singing Voice Dataset, ISMIR 2018",
    ),
)
CATALOG: Mapping[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}
