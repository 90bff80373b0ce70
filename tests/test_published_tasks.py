"""Published datasets as data: labels as their manifests have them become tasks, and are judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tune_cache.datasets.base import SPLITS
from tune_cache.datasets.catalog import load_dataset
from tune_cache.errors import TaskError
from tune_cache.probes.tasks import load_task

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS]
GENRES = ["blues", "classical", "country", "disco", "hiphop"]
GENRES += ["jazz", "metal", "pop", "reggae", "rock"]
MARBLE = {"sample_rate": 44100, "num_samples": 1323000, "channels": 1, "duration": 30.0,
          "bit_depth": 16}  # fmt: skip


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Write a dataset's manifests where MARBLE has them; give its tasks' data by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNE_DATASET", raising=False)

    def load(name, folder, labels):
        for split in SPLITS:
            path = Path("data", folder, f"{name}.{split}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                {"audio_path": f"data/{folder}/{split}{place}.wav", **label, **MARBLE}
                for place, label in enumerate(labels)
            ]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = load_dataset(name)
        return {task.name: load_task(dataset, task) for task in dataset.tasks}

    return load


def metrics(data):
    return [metric.name for metric in data.metrics]


def test_emo_has_arousal_before_valence(loaded):
    (data,) = loaded("EMO", "EMO", [{"label": [5.25, 4.0]}, {"label": [3.0, 6.5]}]).values()
    assert (data.kind, data.targets) == ("regression", ("arousal", "valence"))
    assert metrics(data) == ["r2", "r2_arousal", "r2_valence"]
    np.testing.assert_array_equal(data.splits["test"].truth, [[5.25, 4.0], [3.0, 6.5]])


def test_gtzan_numbers_its_ten_genres_as_marble_does(loaded):
    labels = [{"label": name} for name in reversed(GENRES)]
    (data,) = loaded("GTZANGenre", "GTZAN", labels).values()
    assert (data.kind, list(data.classes)) == ("multiclass", GENRES)
    assert data.splits["train"].truth.tolist() == list(range(9, -1, -1))
    assert metrics(data) == ["accuracy", "macro_f1"]


def test_gs_has_24_keys_and_forgives_as_mir_eval_does_without_descending_fifths(loaded):
    from mir_eval.key import weighted_score

    labels = [{"label": key, "ori_uid": key} for key in KEYS]
    (data,) = loaded("GS", "GS", labels).values()
    assert metrics(data) == ["weighted_key", "accuracy"]
    assert sorted(data.classes) == sorted(KEYS)
    assert set(data.splits["test"].groups) == set(KEYS)
    number = {name: place for place, name in enumerate(data.classes)}
    (score, _) = data.metrics
    for truth, guess, points in (
        ("C major", "C major", 1.0),
        ("C major", "G major", 0.5),  # the fifth above
        ("C major", "F major", 0.0),  # the fifth below is forgiven only on request
        ("C major", "A minor", 0.3),
        ("C major", "C minor", 0.2),
        ("Eb minor", "Gb major", 0.3),
        ("Gb minor", "Db minor", 0.5),
    ):
        found = score(np.array([number[truth]]), np.array([number[guess]]))
        assert found == pytest.approx(points)
        assert weighted_score(truth, guess) == points  # newer ones allow others on request


def test_gs_refuses_labels_that_are_no_keys(loaded):
    with pytest.raises(TaskError, match="needs classes that are keys, found 'Eb'"):
        loaded("GS", "GS", [{"label": "Eb"}, {"label": "C major"}])


def test_mtt_keeps_clips_without_tags(loaded):
    labels = [{"label": ["guitar", "slow"]}, {"label": []}, {"label": ["slow"]}]
    (data,) = loaded("MTT", "MTT", labels).values()
    assert (data.kind, data.classes) == ("multilabel", ("guitar", "slow"))
    assert metrics(data) == ["roc_auc", "ap"]
    for split in SPLITS:
        assert data.splits[split].truth.tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("MTGGenre", "genre---rock"),
        ("MTGInstrument", "instrument---piano"),
        ("MTGMood", "mood/theme---dark"),
        ("MTGTop50", "genre---ambient"),
    ],
)
def test_mtg_keeps_its_tags_as_they_are_written(loaded, name, tag):
    (data,) = loaded(name, "MTG", [{"label": [tag, "genre---pop"]}, {"label": [tag]}]).values()
    assert (data.kind, data.classes) == ("multilabel", tuple(sorted([tag, "genre---pop"])))
    assert metrics(data) == ["roc_auc", "ap"]


def test_nsynth_learns_pitches_and_families_and_pitches_are_classes(loaded):
    labels = [
        {"pitch": pitch, "instrument_family_str": family}
        for pitch, family in ((60, "bass"), (61, "organ"), (108, "bass"))
    ]
    data = loaded("NSynth", "NSynth", labels)
    assert data["pitch"].kind == "multiclass"
    assert set(data["pitch"].classes) == {"60", "61", "108"}
    assert metrics(data["pitch"]) == ["accuracy"]
    assert data["instrument"].classes == ("bass", "organ")
    assert metrics(data["instrument"]) == ["accuracy", "macro_f1"]


def test_vocalset_learns_singers_and_techniques(loaded):
    labels = [
        {"singer": singer, "technique": technique}
        for singer, technique in (("female1", "vibrato"), ("male3", "belt"))
    ]
    data = loaded("VocalSet", "VocalSet", labels)
    assert data["singer"].classes == ("female1", "male3")
    assert data["technique"].classes == ("belt", "vibrato")
    assert metrics(data["technique"]) == ["accuracy", "macro_f1"]
