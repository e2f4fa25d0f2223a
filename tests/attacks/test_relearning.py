"""Relearning on a planted model: its replies, the adapter's algebra, the curve over steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacking import carried_out, target_of
from planted import ANSWER, Planted, planted
from somatlas import InputError
from somatlas.attacks.attack_registry import make_attack
from somatlas.attacks.families.relearning import Relearned, own_replies
from somatlas.attacks.lora import SCALE, Lesson, adapted, learned
from somatlas.judges.keyword import KeywordJudge
from somatlas.models.swapped import swapped
from somatlas.searches.trials import Asking

OWN = {"replies": (4, 16), "steps": (1, 20), "rates": (3e-2,)}


@pytest.fixture(scope="module")
def model() -> Planted:
    return planted(1)


def logits(model: Planted) -> torch.Tensor:
    ids = torch.tensor([model.lm.token_ids(model.test.harmful[0].text)])
    with torch.no_grad():
        return model.lm.model(input_ids=ids).logits


def test_it_learns_from_the_models_own_compliant_replies_alone(model: Planted) -> None:
    target = target_of(model)
    lessons = own_replies(target, 16)
    asked = {prompt.text for prompt in target.train.harmful}
    assert len({lesson.prompt for lesson in lessons}) == len(lessons) == 16
    assert {lesson.prompt for lesson in lessons} <= asked
    said = model.lm.reply_texts([lesson.reply for lesson in lessons])
    assert {text.strip() for text in said} == {" ".join(ANSWER)}


def test_a_curve_over_steps(model: Planted) -> None:
    before = logits(model)
    found = carried_out(make_attack("relearning", OWN), model, 4)
    assert torch.equal(logits(model), before)
    curve = {(a.about["replies"], a.about["steps"]): outcome.asr for a, outcome in found}
    assert list(curve) == [(4, 1), (4, 20), (16, 1), (16, 20)]
    assert curve[16, 1] < 0.5 < curve[16, 20]


def test_an_adapter_is_the_sum_of_weight_and_product(model: Planted) -> None:
    lessons = [Lesson(p.text, [5, 6, 7]) for p in model.train.harmful[:3]]
    factors = learned(model.lm, lessons, [2], rate=1e-2, seed="a", rank=2, rows=2)[2]
    modules = dict(model.lm.model.named_modules())
    assert len(factors) == 2 * 7 * model.lm.n_layers  # of Llama's seven linear layers a block
    with adapted(model.lm, factors):
        actual = logits(model)
    new = {}
    for key, A in factors.items():
        name, _, which = key.rpartition(".")
        if which == "A":
            weight = modules[name].weight
            new[id(weight)] = weight + SCALE * factors[f"{name}.B"] @ A
    with swapped(model.lm.model, new):
        torch.testing.assert_close(actual, logits(model))
    assert not torch.allclose(actual, logits(model))


def test_nothing_of_it_can_be_saved_and_a_judge_is_needed(model: Planted) -> None:
    attack = make_attack("relearning", OWN)
    assert attack.needs_consent
    with pytest.raises(InputError, match="there is nothing to save"):
        Relearned("relearning", "a", 0, {}, {}).edited(model.lm)
    with pytest.raises(InputError, match="give the target `asking`"):
        next(attack.attempts(target_of(model, asking=None), 1))


def test_a_model_that_complies_under_no_direction_has_nothing_to_relearn_from() -> None:
    model = planted(3)
    target = target_of(model, asking=replace(Asking.by(KeywordJudge(), model.lm), tokens=6))
    with pytest.raises(InputError, match="there is nothing to relearn from"):
        next(make_attack("relearning", OWN).attempts(target, 1))
