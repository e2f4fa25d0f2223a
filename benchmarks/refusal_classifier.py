"""Would a small classifier of refusal, trained on our labels, do better than the matcher?

    python benchmarks/refusal_classifier.py FILE ...

FILE : replies that `labelled.py make` made. A logistic regression on words and pairs of words is
trained on the setting half and tested on the other, and trained on all models but one and tested on
that one; the matcher, which is trained on nothing, stands beside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from labelled import labelled
from somatlas.judges import Verdict, is_refusal

Rows = Sequence[dict[str, Any]]


def compare(title: str, train: Rows, test: Rows) -> None:
    """Print the errors of both on the test rows."""
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=30, class_weight="balanced", max_iter=1000),
    )
    classifier.fit([row["reply"] for row in train], [_refuses(row) for row in train])
    said = {
        "classifier": classifier.predict([row["reply"] for row in test]),
        "matcher": [is_refusal(row["reply"]) for row in test],
    }
    refusals = sum(map(_refuses, test))
    for name, found in said.items():
        pairs = [(_refuses(row), bool(f)) for row, f in zip(test, found, strict=True)]
        missed, false = pairs.count((True, False)), pairs.count((False, True))
        print(
            f"{title}, {name}: missed {missed} of {refusals}, "
            f"wrongly said of {false} of {len(pairs) - refusals}"
        )


def _refuses(row: dict[str, Any]) -> bool:
    return bool(row["label"] == Verdict.REFUSED)


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]]
    halves = {
        half: [row for path in paths for row in labelled(path, half)[0]]
        for half in ("setting", "measuring")
    }
    compare("one half to the other", halves["setting"], halves["measuring"])
    every = [*halves["setting"], *halves["measuring"]]
    for model in dict.fromkeys(row["model"] for row in every):
        others = [row for row in every if row["model"] != model]
        if others:
            own = [row for row in every if row["model"] == model]
            compare(f"all others to {model}", others, own)


if __name__ == "__main__":
    main()
