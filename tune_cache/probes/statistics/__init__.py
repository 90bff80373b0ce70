"""How sure a score is, and a difference of two: see ``docs/statistics.md``."""

from tune_cache.probes.statistics.bootstrap import (
    N_RESAMPLES,
    Scorer,
    bootstrap_scores,
    number_groups,
    score_sums,
)
from tune_cache.probes.statistics.intervals import (
    beside_made_up_groups,
    bias_corrected_interval,
    effective_groups,
    expanded_percentiles,
    log_interval,
    percentile_interval,
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
    "beside_made_up_groups",
    "bias_corrected_interval",
    "bootstrap_scores",
    "effective_groups",
    "expanded_percentiles",
    "holm",
    "log_interval",
    "mcnemar",
    "number_groups",
    "percentile_interval",
    "permutation_test",
    "score_ranks",
    "score_sums",
    "smallest_detectable",
]
