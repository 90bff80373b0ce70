"""How sure a score is, and a difference of two: see ``docs/statistics.md``."""

from tune_cache.probes.statistics.bootstrap import (
    N_RESAMPLES,
    Scorer,
    bootstrap_interval,
    bootstrap_scores,
    number_groups,
    percentile_interval,
    score_sums,
)
from tune_cache.probes.statistics.paired import (
    N_PERMUTATIONS,
    holm,
    mcnemar,
    permutation_test,
    smallest_detectable,
)
from tune_cache.probes.statistics.ranking import score_ranks

__all__ = [
    "N_PERMUTATIONS",
    "N_RESAMPLES",
    "Scorer",
    "bootstrap_interval",
    "bootstrap_scores",
    "holm",
    "mcnemar",
    "number_groups",
    "percentile_interval",
    "permutation_test",
    "score_ranks",
    "score_sums",
    "smallest_detectable",
]
