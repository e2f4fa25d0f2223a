"""Plans: what they say, what they refuse, and when they are exploratory; the parts of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from somatlas.attacks.attack_registry import make_attack
from somatlas.audits.audit_plan import NAMED, load_plan
from somatlas.audits.parts import attackers_part, parts_of
from somatlas.errors import InputError
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.prompt_set import Prompt, PromptSet, PromptSplit

PROMPTS = bundled_prompts()


@pytest.mark.parametrize("name", NAMED)
def test_named_plans_can_be_carried_out(name: str) -> None:
    plan = load_plan(name)
    assert not plan.exploratory
    for attack in plan.attacks:
        make_attack(attack, plan.attack_settings.get(attack))
    parts = parts_of(PROMPTS, plan, plan.seed)
    assert len(parts.test.harmful) == plan.test_harmful
    assert {"random", "sd", "som"} <= plan.attacks.keys()


def test_a_budget_may_be_chosen_and_whatever_else_is_exploratory(tmp_path: Path) -> None:
    plain = load_plan("quick")
    assert not load_plan("quick", budget=4, relearn=True).exploratory
    assert not load_plan("quick", seed=plain.seed, judge=plain.judge).exploratory
    assert load_plan("quick", seed=plain.seed + 1).exploratory
    assert load_plan("quick", more_judges=("classifier:x",)).exploratory
    own = tmp_path / "own.toml"
    own.write_text("[attacks]\nsd = 3\n")
    assert load_plan(own).exploratory
    assert load_plan(own).sha256 != plain.sha256
    assert load_plan(own).trials("sd") == 3
    assert load_plan(own, budget=4).trials("sd") == 12
    assert load_plan(own) == load_plan(str(own))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[attacks]\n", "needs an attack"),
        ("caps = [1.0, 0.5]\n[attacks]\nsd = 1\n", "rising"),
        ("[attacks]\nsd = 0\n", "attacks.sd: input should be greater"),
        ("budget = 2\n[attacks]\nsd = 1\n", "budget: input should be 1 or 4"),
        ("trials = 3\n[attacks]\nsd = 1\n", "trials: extra"),
        ('title = "quick"\n[attacks]\nsd = 1\n', "'title', which is not a plan's to say"),
        ("[attacks]\nsd = 1\n[thresholds]\nratios = 3\n", "thresholds must be"),
        ("[attacks]\nsd = 1\n[attack_settings.som]\nlayers = 2\n", "'som', which is no attack"),
        ("[attacks\n", "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="plan") as caught:
        load_plan(path)
    assert said in str(caught.value)
    with pytest.raises(InputError, match="there is no plan 'quickest'"):
        load_plan("quickest")
    with pytest.raises(InputError, match="does not exist"):
        load_plan(tmp_path / "none.toml")


def test_a_threshold_that_is_changed_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[attacks]\nsd = 1\n[thresholds]\nratio = 3.0\n")
    assert load_plan(path).limits.ratio == 3.0
    assert load_plan(path).limits.area == load_plan("quick").limits.area


def test_the_attacker_has_a_third_of_every_category_with_whole_pairs() -> None:
    mine = attackers_part(PROMPTS.train, 0)
    assert len(mine.harmful) == len(PROMPTS.train.harmful) / 3
    for category in {p.category for p in PROMPTS.train.harmful}:
        counts = [sum(p.category == category for p in s.harmful) for s in (mine, PROMPTS.train)]
        assert counts[0] / counts[1] == pytest.approx(1 / 3, abs=0.15)
    topics = {(p.category, p.topic) for p in mine.harmful}
    left = [p for p in PROMPTS.train.harmful if p not in mine.harmful]
    assert not topics & {(p.category, p.topic) for p in left}
    pairs = {p.pair for p in mine.harmful}
    assert {p.pair for p in mine.harmless} == pairs
    assert attackers_part(PROMPTS.train, 0) == mine
    assert attackers_part(PROMPTS.train, 1) != mine


def test_too_few_prompts_are_refused() -> None:
    some = [Prompt(f"prompt {i}") for i in range(60)]
    few = PromptSet(
        {"train": some[:30], "val": some[30:45], "test": some[45:]},
        {"train": some[:30], "val": some[30:45], "test": some[45:50]},
        {},
    )
    with pytest.raises(InputError, match="test has 5 harmless prompts, and an audit needs 8"):
        parts_of(few, load_plan("quick"), 0)
    assert len(attackers_part(PromptSplit(some[:30], some[30:]), 0).harmless) == 10
