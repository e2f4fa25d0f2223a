"""Which prompts stand on which harmless side."""

from __future__ import annotations

from somatlas.atlases.contrast import FEWEST, contrast_sides
from somatlas.prompts import Prompt, bundled_prompts


def test_sides_of_pairs_have_the_same_harmful_prompts_and_no_topic_twice() -> None:
    prompts = bundled_prompts()
    positive, negative = prompts.positive["train"], prompts.negative["train"]
    (matched, shuffled, general), missing = contrast_sides(positive, negative, 0)
    assert not missing
    assert matched.harmful == shuffled.harmful == general.harmful
    assert {side.size for side in (matched, shuffled, general)} == {192}
    assert general.harmless is None
    assert matched.harmless is not None
    assert shuffled.harmless is not None
    for i, j in zip(matched.harmful, matched.harmless, strict=True):
        assert positive[i].pair == negative[j].pair
    partners = {p.pair: (p.category, p.topic) for p in positive}
    own = {partners[positive[i].pair] for i in shuffled.harmful}
    assert own.isdisjoint(partners[negative[j].pair] for j in shuffled.harmless)
    assert contrast_sides(positive, negative, 0)[0] == [matched, shuffled, general]
    assert contrast_sides(positive, negative, 1)[0][0].harmful != matched.harmful


def test_pairs_without_topics_are_halved_as_pairs() -> None:
    positive = [Prompt(f"bad {i}", pair=i) for i in range(2 * FEWEST)]
    negative = [Prompt(f"good {i}", pair=i) for i in reversed(range(2 * FEWEST))]
    (matched, shuffled, _), missing = contrast_sides(positive, negative, 0)
    assert not missing
    assert matched.harmless is not None
    assert shuffled.harmless is not None
    numbers = [negative[j].pair for j in matched.harmless]
    assert numbers == [positive[i].pair for i in matched.harmful]
    assert not set(matched.harmless) & set(shuffled.harmless)


def test_without_enough_pairs_the_side_is_as_given_and_that_is_said() -> None:
    alone = [Prompt(f"bad {i}") for i in range(30)], [Prompt(f"good {i}") for i in range(20)]
    (given, general), missing = contrast_sides(*alone, 0)
    assert "no pairs" in missing
    assert (given.name, given.size, len(given.harmful)) == ("given", 20, 20)
    assert general.harmless is None
    few = [[Prompt(f"{side} {i}", pair=i) for i in range(9)] for side in ("bad", "good")]
    sides, missing = contrast_sides(few[0], few[1], 0)
    assert "only 9 pairs" in missing
    assert sides[0].name == "given"
