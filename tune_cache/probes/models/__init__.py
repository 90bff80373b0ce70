"""Light supervised models, each fitted at every strength of its grid at once.

Conventions
-----------
``X`` is (n_tracks, n_features); ``y`` is classes 0 … n - 1, (n_tracks, n_targets),
or (n_tracks, n_tags) of 0 and 1. A prediction has the form of ``y``; of tags it
is scores, larger meaning more likely. Statistics for scaling come from the
training rows given to ``fit``. Grids are data, strongest regularisation first,
so that a tie on validation goes to the simpler model. Arithmetic is float64.
"""

from tune_cache.probes.models.base import HeldOut, Params, Probe, few_threads
from tune_cache.probes.models.linear import LinearSVM, Logistic
from tune_cache.probes.models.neighbours import KNN, NearestCentroid
from tune_cache.probes.models.registry import AUTO, PROBES, is_trained, make_probe
from tune_cache.probes.models.ridge import Ridge

__all__ = [
    "AUTO",
    "KNN",
    "PROBES",
    "HeldOut",
    "LinearSVM",
    "Logistic",
    "NearestCentroid",
    "Params",
    "Probe",
    "Ridge",
    "few_threads",
    "is_trained",
    "make_probe",
]
