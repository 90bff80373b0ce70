"""The probe of a MARBLE profile: what its data mean for the perceptron here."""

from __future__ import annotations

from tune_cache.datasets.base import Task
from tune_cache.datasets.protocols import Profile
from tune_cache.probes.mlp import MLPOptions
from tune_cache.probes.schedule import Schedule

__all__ = ["marble_options", "marble_warnings"]


def marble_options(
    profile: Profile, task: Task, *, checkpoint: str | None = None, device: str | None = None
) -> MLPOptions:
    """Options of a profile; vectors are taken as they are, never scaled.

    Parameters
    ----------
    task
        Whose targets are z-scored: by the profile's constants if it has one for
        each of them by name, else by the training tracks.
    checkpoint, device
        As of ``tune probe``; None is ``best-val`` and ``auto``.
    """
    constants = None
    if _has_constants(profile, task):
        constants = tuple(profile.constants[name] for name in task.targets)
    return MLPOptions(
        hidden=profile.hidden,
        dropout=profile.dropout,
        schedule=Schedule(
            learning_rate=profile.learning_rate,
            max_epochs=profile.max_epochs,
            patience=profile.patience,
            batch_size=profile.batch_size,
            plateau_factor=profile.plateau_factor,
            plateau_patience=profile.plateau_patience,
            checkpoint=checkpoint or "best-val",
        ),
        average=profile.average,
        constants=constants,
        standardise=False,
        device=device or "auto",
    )


def marble_warnings(profile: Profile, task: Task, layer: str) -> tuple[str, ...]:
    """Say where a run is not the profile's."""
    found = []
    if layer != profile.layer:
        found.append(f"profile {profile.name} takes layer {profile.layer}, this run {layer}")
    if profile.constants and not _has_constants(profile, task):
        found.append(
            f"profile {profile.name} has constants for {', '.join(profile.constants)} only: "
            f"targets are z-scored by the training tracks"
        )
    return tuple(found)


def _has_constants(profile: Profile, task: Task) -> bool:
    return bool(task.targets) and set(task.targets) <= profile.constants.keys()
