"""Linear models on the rows of a table: a network that is below them says little about anything.

Texts: TF-IDF of words and pairs of words with logistic regression, the "bag of words"; the features of a row with two
texts are those of both, side by side. Images: logistic regression on
the pixels, and nearest neighbours. The one setting of each is chosen on validation; the test set is read once, by it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.neighbors import KNeighborsClassifier

from dropattack.data.types import Dataset, TextSplit

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # C of the logistic regression
NEIGHBOURS = (1, 3, 5, 9)


def references(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Fit the reference models of a data set.

    Returns:
        By name (`bag of words`, `linear`, `neighbours`): `setting`, and `validation` and `test` with `accuracy` (0..1),
        `macro_f1` and `loss`.
    """
    features = _features(dataset)
    found = {}
    for name, candidates in _candidates(dataset).items():
        tried = []
        for setting, model in candidates:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(features["train"], dataset.train.labels)
            tried.append((_scores(model, features["validation"], dataset.validation.labels), setting, model))
        validation, setting, model = max(tried, key=lambda one: (one[0]["accuracy"], -one[0]["loss"]))
        test = _scores(model, features["test"], dataset.test.labels)
        found[name] = {"setting": setting, "validation": validation, "test": test}
    return found


def _features(dataset: Dataset) -> dict[str, Any]:
    if not isinstance(dataset.train, TextSplit):
        return {
            name: split.pixels.reshape(len(split), -1).astype(np.float32) / 255
            for name, split in dataset.splits.items() if not isinstance(split, TextSplit)
        }  # fmt: skip
    texts = {name: split for name, split in dataset.splits.items() if isinstance(split, TextSplit)}
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    words.fit([*dataset.train.texts, *(dataset.train.pairs or ())])
    return {name: hstack([words.transform(part) for part in (split.texts, split.pairs) if part is not None]).tocsr()
            for name, split in texts.items()}  # fmt: skip


def _candidates(dataset: Dataset) -> dict[str, Iterable[tuple[dict[str, float], Any]]]:
    linear = [({"C": c}, LogisticRegression(C=c, max_iter=300)) for c in STRENGTHS]
    if isinstance(dataset.train, TextSplit):
        return {"bag of words": linear}
    near = [({"k": float(k)}, KNeighborsClassifier(n_neighbors=k)) for k in NEIGHBOURS]
    small = [({"C": c}, LogisticRegression(C=c, max_iter=100)) for c in (0.03, 0.3)]
    return {"linear": small, "neighbours": near}


def _scores(model: Any, features: Any, labels: np.ndarray) -> dict[str, float]:
    probabilities = model.predict_proba(features)
    predicted = model.classes_[probabilities.argmax(-1)]
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "loss": float(log_loss(labels, probabilities, labels=model.classes_)),
    }
