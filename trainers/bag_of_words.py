"""A baseline without pretraining: TF-IDF of words and word pairs, with logistic regression or ridge regression.

It is fitted once for each dataset; its predictions are kept in the cache, and scikit-learn is imported only to fit it.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heads.example import Example
from trainers.config import TaskConfig
from trainers.data.cache import made_once
from trainers.data.examples import read_examples
from trainers.data.records import Records
from trainers.data.split import Split
from trainers.metrics import score
from trainers.results import true_labels

MAX_TRAIN_ROWS = 200_000  # more would take minutes
MAX_WEIGHTS = 5_000_000  # features times classes
MAX_FEATURES = 100_000
# Scripts without spaces between words (Thai to Khmer, kana, Han) have a token for each character.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
TOKEN = rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]"
# Increase when the same rows would get other predictions, so that cached predictions of older versions are ignored.
VERSION = 1
KIND, FILE = "bag_of_words", "predictions.npz"  # a kind of folder in the cache, and its file


class Text(NamedTuple):
    """The texts of an example: the second is empty unless the task is about a pair."""

    first: str
    second: str


def bag_of_words(
    task: TaskConfig, records: Records, splits: Mapping[str, Split], train: Split
) -> dict[str, dict[str, float]]:
    """The metrics of each split that has labels, on its labelled rows; empty where there is no such baseline.

    There is none for multiple choice, whose candidates differ from row to row, and for more than MAX_TRAIN_ROWS rows.
    """
    if task.structure == "multiple_choice" or len(train) > MAX_TRAIN_ROWS:
        return {}
    scored = {name: split for name, split in splits.items() if len(true_labels(split))}
    guids = {name: [guid for guid, _ in split.named()] for name, split in scored.items()}
    train_guids = [guid for guid, _ in train.named()]

    def fit(folder: Path) -> None:
        found: dict[str, Any] = _predictions(task, records, guids, train_guids)
        np.savez(folder / FILE, **found)

    about = [task.reader, task.texts, task.label, task.labels, task.score_range, task.structure]
    digests = [[name, _digest(each)] for name, each in {**guids, "": train_guids}.items()]
    folder = made_once(
        None, KIND, [VERSION, records.content, about, digests], fit, lambda made: (made / FILE).is_file()
    )
    with np.load(folder / FILE) as found:
        return {
            name: score(task.metrics, found[name][split.labelled], true_labels(split))
            for name, split in scored.items()
            if name in found
        }


def _digest(guids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(guids).encode()).hexdigest()


def _predictions(
    task: TaskConfig, records: Records, guids: Mapping[str, Sequence[str]], train_guids: Sequence[str]
) -> dict[str, np.ndarray]:
    """A class index or a score for each row of each split."""
    train = _examples(task, records, "train", train_guids)
    texts, labels = [_text(example) for example in train], np.array([example.label for example in train])
    predict = _fit(texts, labels, task)
    return {
        name: predict([_text(example) for example in _examples(task, records, name, each)])
        for name, each in guids.items()
    }


def _examples(task: TaskConfig, records: Records, name: str, guids: Sequence[str]) -> list[Example]:
    """The examples of a split that are encoded, in their order."""
    wanted = set(guids)
    read = read_examples(name, records.splits[name], task, task.labels)
    found = {example.guid: example for _, example in read if example.guid in wanted}
    return [found[guid] for guid in guids]


def _text(example: Example) -> Text:
    first, *others = example.texts
    return Text(first, " ".join(others))


def _fit(texts: Sequence[Text], labels: np.ndarray, task: TaskConfig) -> Callable[[Sequence[Text]], np.ndarray]:
    """Fit the features and the linear model on the train rows; returns what predicts other rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) == 1:
        return lambda other: np.full(len(other), labels[0])
    pair, n_classes = any(text.second for text in texts), 1 if task.regression else len(task.labels)
    featurize = _featurizer(texts, task, pair, min(MAX_FEATURES, MAX_WEIGHTS // n_classes))
    model: Any = Ridge(alpha=1.0, solver="lsqr") if task.regression else LogisticRegression(C=10.0, max_iter=200)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(featurize(texts), labels)
    return lambda other: model.predict(featurize(other))


def _featurizer(
    texts: Sequence[Text], task: TaskConfig, pair: bool, n_features: int
) -> Callable[[Sequence[Text]], Any]:
    """Fit the vocabulary; returns what makes a sparse matrix of texts.

    A pair has the words of both texts apart (of a symmetric pair: those that only one has), those that both have, and
    the cosine of the two.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(token_pattern=TOKEN, ngram_range=(1, 2), sublinear_tf=True, max_features=n_features)
    tfidf.fit([side for text in texts for side in (text if pair else text[:1])])

    def featurize(some: Sequence[Text]) -> Any:
        first = tfidf.transform([text.first for text in some])
        if not pair:
            return first
        second = tfidf.transform([text.second for text in some])
        both = first.multiply(second)
        apart = [abs(first - second)] if task.structure == "similarity" else [first, second]
        return hstack([*apart, both, csr_matrix(both.sum(axis=1))], format="csr")

    return featurize
