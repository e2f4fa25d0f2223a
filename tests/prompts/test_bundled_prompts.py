"""The bundled prompt set keeps what it promises."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from somatlas.prompts import SPLITS, Prompt, PromptSet, Split, bundled_prompts, general_prompts

SYNTAXES = {"imperative", "question", "role", "code", "letter", "list"}
SIDES = ("positive", "negative", "borderline")


@pytest.fixture(scope="module")
def bundled() -> PromptSet:
    return bundled_prompts()


def everything(prompts: PromptSet, side: str) -> list[Prompt]:
    return [p for split in SPLITS for p in getattr(prompts, side)[split]]


def test_counts_and_categories(bundled: PromptSet) -> None:
    assert len(everything(bundled, "positive")) == 640
    assert len(everything(bundled, "negative")) == 640
    assert len(everything(bundled, "borderline")) == 192
    counts = Counter(p.category for p in everything(bundled, "positive"))
    assert len(counts) == 16
    assert set(counts.values()) == {40}
    sizes = {s: [len(getattr(bundled, side)[s]) for side in SIDES] for s in SPLITS}
    assert sizes == {"train": [384, 384, 96], "val": [128, 128, 32], "test": [128, 128, 64]}


def test_every_category_uses_every_syntax(bundled: PromptSet) -> None:
    counts = Counter((p.category, p.syntax) for p in everything(bundled, "positive"))
    assert {syntax for _, syntax in counts} == SYNTAXES
    assert min(counts[c, s] for c, _ in counts for s in SYNTAXES) >= 3


def test_prompts_are_short(bundled: PromptSet) -> None:
    for side in SIDES:
        for p in everything(bundled, side):
            assert 4 <= len(p.text.split()) <= 24, p.text


@pytest.mark.parametrize("side", SIDES)
def test_splits_share_no_topic(bundled: PromptSet, side: str) -> None:
    where: dict[str, set[Split]] = {}
    for split in SPLITS:
        for p in getattr(bundled, side)[split]:
            where.setdefault(p.topic.casefold(), set()).add(split)
    assert [topic for topic, splits in where.items() if len(splits) > 1] == []


def test_pairs_match_in_opening_syntax_and_length(bundled: PromptSet) -> None:
    for split in SPLITS:
        pairs = zip(bundled.positive[split], bundled.negative[split], strict=True)
        for harmful, harmless in pairs:
            assert harmful.pair == harmless.pair
            assert harmful.syntax == harmless.syntax
            assert harmful.text.split()[0] == harmless.text.split()[0]
            lengths = sorted((len(harmful.text), len(harmless.text)))
            assert lengths[1] <= 1.2 * lengths[0], harmful.text


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def test_no_two_prompts_are_alike(bundled: PromptSet) -> None:
    """Jaccard similarity of word sets: at most 0.5; inside a pair, which share their frame, 0.8."""
    prompts = [(p, words(p.text)) for side in SIDES for p in everything(bundled, side)]
    alike = [
        (a.text, b.text)
        for (a, x), (b, y) in itertools.combinations(prompts, 2)
        if len(x & y) > (0.8 if a.pair is not None and a.pair == b.pair else 0.5) * len(x | y)
    ]
    assert alike == []


def test_what_trains_the_embedded_models_is_not_like_what_measures_them(bundled: PromptSet) -> None:
    """Requests beside the training script against val and test: Jaccard at most 0.5, as above."""
    folder = Path(__file__).parents[2] / "training"
    lines = [
        field
        for name in ("requests.txt", "borderline_requests.txt", "general_prompts.txt")
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
        for field in line.split(" | ")[0 if name.startswith("general") else 1 :]
    ]
    held_out = [
        p.text for s in ("val", "test") for side in SIDES for p in getattr(bundled, side)[s]
    ]
    known = [(text, words(text)) for text in held_out]
    alike = [
        (line, text)
        for line in lines
        for text, w in known
        if len(w & words(line)) > 0.5 * len(w | words(line))
    ]
    assert alike == []


def test_general_prompts_are_those_of_the_training_and_stand_in_no_pair(bundled: PromptSet) -> None:
    path = Path(__file__).parents[2] / "training" / "general_prompts.txt"
    assert general_prompts() == tuple(path.read_text(encoding="utf-8").splitlines())
    assert len(set(general_prompts())) == 420
    own = {p.text for side in SIDES for p in everything(bundled, side)}
    assert own.isdisjoint(general_prompts())


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())])
def test_length_alone_does_not_tell_harmful_from_harmless(
    bundled: PromptSet, split: Split, measure: object
) -> None:
    """The area under the ROC curve of length, in characters and in words, is near one half."""
    assert callable(measure)
    a, b = ([measure(p.text) for p in side[split]] for side in (bundled.positive, bundled.negative))
    wins = sum((x > y) + 0.5 * (x == y) for x in a for y in b) / (len(a) * len(b))
    assert 0.42 <= wins <= 0.58


def test_a_length_classifier_fitted_on_train_is_near_chance_on_test(bundled: PromptSet) -> None:
    """The best single threshold, either way round, gains less than 5 points over guessing."""
    train, test = (
        [(len(p.text), True) for p in bundled.positive[s]]
        + [(len(p.text), False) for p in bundled.negative[s]]
        for s in ("train", "test")
    )

    def accuracy(data: list[tuple[int, bool]], threshold: int, longer_is_harmful: bool) -> float:
        right = sum(((n > threshold) == harmful) == longer_is_harmful for n, harmful in data)
        return right / len(data)

    rules = list(itertools.product(range(150), (True, False)))
    best = max(rules, key=lambda rule: accuracy(train, *rule))
    assert accuracy(test, *best) < 0.55


def test_the_hash_changes_with_any_prompt(bundled: PromptSet) -> None:
    fewer = bundled.limited({"train": 383})
    assert len(fewer.positive["train"]) == 383
    assert fewer.sha256() != bundled.sha256() == bundled_prompts().sha256()


def test_a_limit_keeps_every_category_and_the_pairs(bundled: PromptSet) -> None:
    some = bundled.limited({"test": 32})
    assert len({p.category for p in some.positive["test"]}) == 16
    assert [p.pair for p in some.positive["test"]] == [p.pair for p in some.negative["test"]]
