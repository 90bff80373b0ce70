"""Published protocols as data: how a benchmark cuts its audio and trains its probes.

Conventions
-----------
``marble-v2`` is MARBLE v2's, by its MuQ configs (https://github.com/a43992899/MARBLE,
``configs/probe.MuQ.TASK.yaml``; Yuan et al., "MARBLE", NeurIPS 2023). Each constant
names its key there. What those configs share is a default of :class:`Profile`; where
a task's config was not at hand, its comment says so. What is not copied: "best"
there is the last epoch, and R² of validation a mean over batches.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tune_cache.errors import TaskError, UsageError
from tune_cache.specs import ChannelRule

if TYPE_CHECKING:
    from tune_cache.datasets.base import Dataset, Kind, Task

__all__ = ["MARBLE_V2", "PROTOCOLS", "Profile", "profile_of", "profiles_of"]

PROTOCOLS = ("tune", "marble-v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One task of MARBLE v2.

    Parameters
    ----------
    slice_seconds
        ``clip_seconds``: int(slice_seconds · rate) frames at the file's own rate.
    least_share
        ``min_clip_ratio``: of a slice that a tail must have; it is padded with zeros
        on the right, and they count in the mean over time.
    channels
        ``channel_mode``.
    layer
        ``LayerSelector``: one; or ``mix``, ``LayerWeightedSum`` over all of them.
    hidden, dropout
        ``MLPDecoder``: one hidden layer, ReLU.
    learning_rate
        Of ``torch.optim.Adam``.
    batch_size
        ``batch_size`` · ``accumulate_grad_batches``.
    max_epochs, patience
        ``max_epochs``; ``EarlyStopping`` on the validation metric.
    plateau_factor, plateau_patience
        ``ReduceLROnPlateau`` on the validation metric.
    average
        Of a file's slices at test: softmax ``probabilities`` or ``outputs`` (logits).
    constants
        Mean and standard deviation that the dataset's targets are z-scored by.
    """

    name: str
    kind: Kind
    slice_seconds: float
    layer: str
    learning_rate: float = 1e-3
    channels: ChannelRule = "first"
    least_share: float = 0.8
    hidden: int = 512
    dropout: float = 0.2
    batch_size: int = 64
    max_epochs: int = 50
    patience: int = 20
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    average: str = "outputs"
    seed: int = 1234
    constants: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _tagging(name: str, *, max_epochs: int = 50) -> Profile:
    """MTT and MTG: the channels' mean, 128 a step, patience 10.

    Their plateau's patience was not at hand; 5 is GS's.
    """
    return Profile(
        name=name,
        kind="multilabel",
        slice_seconds=30,
        channels="mix",
        layer="mix",
        batch_size=128,
        max_epochs=max_epochs,
        patience=10,
    )


_PROFILES = (
    Profile(
        name="EMO",
        kind="regression",
        slice_seconds=15,
        layer="6",
        plateau_patience=6,  # of the MERT config
        # the datamodule's, in the order that it reads them
        constants={"arousal": (4.7560632, 1.3860097), "valence": (4.9738646, 1.2546189)},
    ),
    Profile(
        name="GTZANGenre",
        kind="multiclass",
        slice_seconds=30.2,
        layer="6",
        learning_rate=5e-3,
        plateau_patience=6,
        average="probabilities",  # the only task that averages them
    ),
    Profile(name="GS", kind="multiclass", slice_seconds=30, layer="mix"),  # 5: the MERT config
    _tagging("MTT"),
    *(_tagging(f"MTG{part}", max_epochs=20) for part in ("Genre", "Instrument", "Mood", "Top50")),
)
MARBLE_V2: Mapping[str, Profile] = {profile.name: profile for profile in _PROFILES}


def profile_of(dataset: Dataset, task: Task) -> Profile:
    """Look up the profile of a task: as tune.toml maps it, else by its name.

    Raises
    ------
    UsageError
        If none is known; the message lists those that are.
    TaskError
        If the profile is of another kind of task.
    """
    name = task.protocol_task or task.name
    if name not in MARBLE_V2:
        lower = {known.lower(): known for known in MARBLE_V2}
        near = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, n=1)]
        raise UsageError(
            f"protocol marble-v2 has no profile for task {task.name!r} of dataset "
            f"{dataset.name!r}; it has {', '.join(MARBLE_V2)}",
            hint="say which to follow in tune.toml: "
            f'protocol_task = "{near[0] if near else "GTZANGenre"}" under '
            f"[datasets.NAME] or [datasets.NAME.tasks.{task.name}]",
        )
    profile = MARBLE_V2[name]
    if profile.kind != task.kind:
        raise TaskError(
            f"task {task.name!r} is {task.kind}, and profile {name} of marble-v2 is for "
            f"{profile.kind}",
            hint="choose another protocol_task in tune.toml",
        )
    return profile


def profiles_of(dataset: Dataset) -> tuple[Profile, ...]:
    """Profiles of a dataset's tasks, one for each way of cutting and mixing its audio.

    Raises
    ------
    TaskError
        If it has no task.
    """
    if not dataset.tasks:
        raise TaskError(
            f"dataset {dataset.name!r} has no task, so no profile of marble-v2",
            hint="say which keys are labels under [datasets.NAME.tasks.T] in tune.toml",
        )
    found = [profile_of(dataset, task) for task in dataset.tasks]
    by_cut: dict[tuple[float, str], Profile] = {}
    for profile in found:
        by_cut.setdefault((profile.slice_seconds, profile.channels), profile)
    return tuple(by_cut.values())
