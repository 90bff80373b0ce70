"""Scikit-learn's own checks of every aggregation.

They know plain matrices only, which are tracks of one segment each. None of them
is expected to fail; ``check_array_api_input`` skips itself unless SCIPY_ARRAY_API
is set before scipy is imported.
"""

from __future__ import annotations

from sklearn.utils.estimator_checks import parametrize_with_checks

from tune_cache.aggregation.registry import AGGREGATIONS, MULTISCALE, make_aggregation

ESTIMATORS = [make_aggregation(name) for name in (*AGGREGATIONS, *MULTISCALE)]
ESTIMATORS += [make_aggregation("concat", fill=fill) for fill in ("mean", "zero")]


@parametrize_with_checks(ESTIMATORS)
def test_an_aggregation_is_what_scikit_learn_calls_a_transformer(estimator, check):
    check(estimator)
