"""Any scikit-learn estimator as a probe, by its dotted path.

Conventions
-----------
``sklearn.svm.SVC`` is one setting, the estimator's defaults.
``sklearn.svm.SVC(kernel="rbf", C={0.1, 1, 10})`` gives settings: a value in
``{…}`` is a grid, everything else is one value, and all are Python literals.
Several grids are crossed, the last fastest; order them from the simplest model.
Naming a class imports its module: name only what you trust.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import warnings
from typing import Any, ClassVar, Self

import numpy as np

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.models.base import Array, Params, Scaling

__all__ = ["Estimator"]

EXAMPLE = 'for example sklearn.svm.SVC or sklearn.svm.SVC(kernel="rbf", C={0.1, 1, 10})'


class Estimator:
    """Fit clones of one estimator, a setting of the grid each.

    Targets or tags that it cannot learn together are learnt one by one.

    Parameters
    ----------
    text
        Dotted path, and settings in brackets if any.
    kind
        Of the task.
    seed
        Given as ``random_state`` where there is such a parameter and no value.

    Raises
    ------
    UsageError
        If the text is no such path, or names no estimator or no parameter of it.
    TaskError
        If the estimator is a regressor and the task has classes, or the reverse.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel", "regression")
    warnings: tuple[str, ...] = ()

    def __init__(self, text: str, kind: str, *, seed: int = 0) -> None:
        path, fixed, grids = _parse(text)
        self.text, self._kind = text, kind
        self._template = _estimator(path)
        known = self._template.get_params()
        unknown = sorted((fixed.keys() | grids.keys()) - known.keys())
        if unknown:
            raise UsageError(
                f"estimator {path!r} has no parameter {unknown[0]!r}",
                hint="its parameters: " + ", ".join(sorted(known)),
            )
        if "random_state" in known and "random_state" not in fixed.keys() | grids.keys():
            fixed["random_state"] = seed
        self._template.set_params(**fixed)
        self._refuse_other_kind(path)
        self.grid: tuple[Params, ...] = tuple(
            dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())
        )

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        from sklearn.base import clone
        from sklearn.exceptions import ConvergenceWarning

        self._scaled = Scaling(X, standardise=standardise)
        scaled = self._scaled(X)
        self._is_column = self._kind == "regression" and y.shape[1] == 1
        self._fitted = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for params in self.grid:
                model = self._for_many(clone(self._template).set_params(**params), y)
                try:
                    model.fit(scaled, y[:, 0] if self._is_column else y)
                except (ValueError, TypeError, AttributeError) as error:
                    raise TaskError(
                        f"probe {self.text!r} cannot be fitted with {dict(params)}: {error}"
                    ) from error
                self._fitted.append(model)
        self.warnings = ()
        if n := sum(issubclass(item.category, ConvergenceWarning) for item in caught):
            self.warnings = (f"{self.text} did not converge: {n} warnings",)
        return self

    def predict_all(self, X: Array) -> list[Array]:
        scaled = self._scaled(X)
        return [self._predicted(model, scaled) for model in self._fitted]

    def predict(self, X: Array, choice: int) -> Array:
        return self._predicted(self._fitted[choice], self._scaled(X))

    def _predicted(self, model: Any, scaled: Array) -> Array:
        if self._kind == "multilabel":
            can_decide = hasattr(model, "decision_function")
            found = model.decision_function(scaled) if can_decide else model.predict_proba(scaled)
            return np.asarray(found, dtype=np.float64).reshape(len(scaled), -1)
        found = np.asarray(model.predict(scaled))
        return found[:, None] if self._is_column and found.ndim == 1 else found

    def _for_many(self, model: Any, y: Array) -> Any:
        """Wrap what learns one target or tag at a time."""
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.multioutput import MultiOutputRegressor
        from sklearn.utils import get_tags

        if self._kind == "multilabel":
            return OneVsRestClassifier(model)
        if self._kind == "regression" and not self._is_column:
            return (
                model if get_tags(model).target_tags.multi_output else MultiOutputRegressor(model)
            )
        return model

    def _refuse_other_kind(self, path: str) -> None:
        from sklearn.base import is_classifier, is_regressor

        fits = is_regressor if self._kind == "regression" else is_classifier
        if not fits(self._template):
            wanted = "regressor" if self._kind == "regression" else "classifier"
            raise TaskError(
                f"probe {path!r} cannot learn a {self._kind} task: it is no {wanted}",
                hint="choose another estimator, or another --task",
            )


def _parse(text: str) -> tuple[str, dict[str, Any], dict[str, list[Any]]]:
    """Split into path, single values, and grids."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        keywords = tree.keywords if isinstance(tree, ast.Call) else []
        if isinstance(tree, ast.Call) and tree.args:
            raise ValueError("parameters go by name")
        path = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
        if not all(part.isidentifier() for part in path.split(".")):
            raise ValueError(f"{path!r} is no dotted path")
        fixed: dict[str, Any] = {}
        grids: dict[str, list[Any]] = {}
        for keyword in keywords:
            if keyword.arg is None:
                raise ValueError("parameters go by name")
            if isinstance(keyword.value, ast.Set):
                grids[keyword.arg] = [ast.literal_eval(item) for item in keyword.value.elts]
            else:
                fixed[keyword.arg] = ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"probe is {text!r}, expected a dotted path with literal settings: {error}",
            hint=EXAMPLE,
        ) from error
    return path, fixed, grids


def _estimator(path: str) -> Any:
    """Import a class and make one with its defaults; nothing else is ever called."""
    module, _, name = path.rpartition(".")
    methods = ("fit", "predict", "get_params", "set_params")
    try:
        found = getattr(importlib.import_module(module), name)
        if isinstance(found, type) and all(hasattr(found, method) for method in methods):
            return found()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"probe {path!r} cannot be made: {error}", hint=EXAMPLE) from error
    raise UsageError(f"probe {path!r} is no scikit-learn estimator", hint=EXAMPLE)
