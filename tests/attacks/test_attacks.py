"""Attacks on models whose refusal is planted: what they find is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from attacking import asking_of, carried_out, target_of
from planted import ANSWER, Planted, planted
from somatlas import InputError
from somatlas.ablation import LayerProjections, Projection
from somatlas.attacks.attack import Attack, Attempt, Outcome
from somatlas.attacks.attack_registry import ATTACKS, make_attack
from somatlas.attacks.families.other_model import Stripped
from somatlas.attacks.families.partial_ablation import NormPreserved
from somatlas.attacks.frontier import BUDGETS
from somatlas.attacks.measuring import replies
from somatlas.attacks.pools import Pool
from somatlas.attacks.set_search import SetSearch, mixed
from somatlas.attacks.target import Target
from somatlas.measures.drift import Drift
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.packed import repack
from somatlas.prompts.prompt_set import texts
from somatlas.testing import AttackContract

SEARCHED = {"ks": (1, 2, 3), "layers": 2}


@pytest.fixture(scope="module")
def one() -> Planted:
    return planted(1)


@pytest.fixture(scope="module")
def three() -> Planted:
    return planted(3)


@pytest.fixture(scope="module")
def few() -> Planted:
    return planted(3, prompts=18)


@pytest.fixture(scope="module")
def other() -> Planted:
    """Of the same architecture, with other directions."""
    return planted(3, seed=1)


def asr(model: Planted, vectors: Tensor) -> float:
    return asking_of(model).shares([Projection(vectors)], texts(model.test.harmful))[1]["asr"]


def best_by_k(found: list[tuple[Attempt, Outcome]], limit: float = 0.5) -> dict[int, float]:
    """The highest ASR of each k within a drift."""
    best: dict[int, float] = {}
    for attempt, outcome in found:
        if outcome.kl <= limit:
            best[attempt.k] = max(best.get(attempt.k, 0.0), outcome.asr)
    return best


def test_the_planted_models_refuse_what_is_harmful_and_nothing_else(
    one: Planted, three: Planted
) -> None:
    for model in (one, three):
        asking = asking_of(model)
        for side, expected in ((model.test.harmful, 1.0), (model.test.harmless, 0.0)):
            (shares,) = asking.shares([], texts(side))
            assert shares["refusal"] == expected


def test_three_redundant_directions_are_broken_by_all_three_alone(three: Planted) -> None:
    assert asr(three, three.directions) == 1.0
    for pair in combinations(range(3), 2):
        assert asr(three, three.directions[list(pair)]) == 0.0


@pytest.mark.parametrize("name", ["sd", "layerwise", "iterated", "partial", "prefill"])
def test_one_planted_direction_is_broken_by_one(name: str, one: Planted) -> None:
    found = carried_out(make_attack(name), one, 4)
    assert max(outcome.asr for _, outcome in found if outcome.kl < 0.05) == 1.0


@pytest.mark.parametrize("name", ["som", "layerwise"])
def test_sets_break_three_planted_directions_by_three_and_by_no_fewer(
    name: str, three: Planted
) -> None:
    found = carried_out(make_attack(name, SEARCHED if name == "som" else {}), three, 16)
    best = best_by_k(found)
    assert best[3] == 1.0
    assert max(best.get(1, 0.0), best.get(2, 0.0)) < 0.5


def test_single_directions_do_not_break_three(three: Planted) -> None:
    found = carried_out(make_attack("sd"), three, 4)
    assert max(outcome.asr for _, outcome in found) < 0.5


QUICK: dict[str, dict[str, Any]] = {
    "gradient": {"steps": 2, "rows": 4},
    "relearning": {"replies": (2,), "steps": (1, 2, 3)},
}


class TestEveryAttack(AttackContract):
    """On a planted model and few prompts, with a second one of other directions."""

    budget, applied = 5, 3

    @pytest.fixture(autouse=True, params=ATTACKS.names())
    def _given(self, request: pytest.FixtureRequest, few: Planted, other: Planted) -> None:
        # Relearning begins with what a single direction lets through: of three, nothing.
        learner = planted(1, prompts=18) if request.param == "relearning" else few
        self.name, self.models = request.param, (learner, other)

    def make(self) -> Attack:
        return make_attack(self.name, QUICK.get(self.name))

    def target(self) -> Target:
        model, other = self.models
        return target_of(model, other=other.lm, screen_prompts=4)


class TestTheAttackOfTheDocs(TestEveryAttack):
    """docs/attacks.md has a whole one."""

    @pytest.fixture(autouse=True)
    def _given(self, few: Planted, other: Planted) -> None:
        self.models = (few, other)

    def make(self) -> Attack:
        page = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text(encoding="utf-8")
        block = page.split("```python\n")[1].split("```")[0]
        names: dict[str, Any] = {}
        exec(block, names)
        attack: Attack = names["PairsAttack"]()
        return attack


def test_phase_one_is_the_plain_attack(three: Planted) -> None:
    """The same directions, the map's as a span; and what the second phase adds is new."""
    target = target_of(three)
    first, second = islice(_rounds(make_attack("iterated"), target), 2)
    assert [attempt.about["phase"] for attempt in (*first, *second)] == [1] * 3 + [2] * 3
    single = next(make_attack("sd").attempts(target, 1))[0].ablation
    sets = next(make_attack("som", {"ks": (3,)}).attempts(target, 1))[0].ablation
    assert isinstance(single, Projection)
    assert isinstance(sets, Projection)
    span = Projection(sets.vectors, "subspace")
    for attempt, plain in zip(first, (single, span), strict=False):
        assert isinstance(attempt.ablation, Projection)
        torch.testing.assert_close(attempt.ablation.matrix(), plain.matrix(), rtol=0, atol=1e-12)
    layered = first[2].ablation
    assert isinstance(layered, LayerProjections)
    for block, difference in zip(layered.blocks, target.differences(), strict=True):
        assert block is not None
        own = Projection(difference[None])
        torch.testing.assert_close(block.matrix(), own.matrix(), rtol=0, atol=1e-12)
    assert [b.k > a.k for a, b in zip(first, second, strict=True)] == [True] * 3


def test_the_map_after_an_ablation_says_where_its_prompts_were(three: Planted) -> None:
    """Of the first one: in their own cells, a kind each, as planted. Then nothing holds them."""
    first, second = islice(_rounds(make_attack("iterated"), target_of(three)), 2)
    cells, after = first[1].about["cells"], second[1].about["cells"]
    for rank, cell in enumerate(cells):
        assert (cell["from"], cell["share"]) == (rank, 1.0)
    for found in (cells, after):
        assert sum(cell["prompts"] for cell in found) == len(three.train.harmful)
    own = [cell for cell in cells if cell["prompts"] > 2]
    assert min(cell["category_share"] for cell in own) > 0.9
    assert max(c["length"] for c in after) < 0.2 * min(c["length"] for c in own)


def test_what_is_extracted_under_an_ablation_has_nothing_along_it(three: Planted) -> None:
    target = target_of(three)
    attempt = next(make_attack("sd").attempts(target, 1))[0]
    assert isinstance(attempt.ablation, Projection)
    unit = attempt.ablation.A[:, 0].float()
    was, now = target.differences(), target.differences(attempt)
    assert (was @ unit).abs().max() > 0.1
    assert (now @ unit).abs().max() < 1e-5


def test_transfer_takes_the_other_models_directions(one: Planted, other: Planted) -> None:
    target = target_of(one, other=other.lm)
    attempt = next(make_attack("transfer").attempts(target, 1))[0]
    own = next(make_attack("sd").attempts(target.of_other(), 1))[0]
    assert isinstance(attempt.ablation, Projection)
    assert isinstance(own.ablation, Projection)
    assert torch.equal(attempt.ablation.vectors, own.ablation.vectors)


def test_strip_mixes_the_weights_and_extracts_anew(three: Planted) -> None:
    """Against the mixture in float64; of all stripped, what is left is the other model."""
    base = planted(1, seed=2)
    target = target_of(three, other=base.lm)
    found = next(make_attack("strip").attempts(target, 2))
    assert [attempt.about["keep"] for attempt in found] == [0.3, 0.0]
    for attempt in found:
        assert isinstance(attempt, Stripped)
        with replace(attempt, then=None).applied(three.lm):
            now = {n: p.double() for n, p in three.lm.model.named_parameters()}
        theirs = dict(base.lm.model.named_parameters())
        for name, own in three.lm.model.named_parameters():
            mixed = theirs[name].double() + attempt.keep * (own.double() - theirs[name].double())
            torch.testing.assert_close(now[name], mixed, rtol=0, atol=1e-6)
    alone = next(make_attack("sd").attempts(target.of_other(), 1))[0]
    assert isinstance(alone.ablation, Projection)
    stripped = found[1]
    assert isinstance(stripped, Stripped)
    assert stripped.then is not None
    assert isinstance(stripped.then.ablation, Projection)
    torch.testing.assert_close(
        stripped.then.ablation.vectors, alone.ablation.vectors, rtol=0, atol=1e-6
    )


def test_norms_are_kept_and_the_direction_is_gone(three: Planted) -> None:
    target, lm = target_of(three), three.lm
    rounds = make_attack("partial").attempts(target, 4)
    (attempt,) = [one for one in next(rounds) if isinstance(one, NormPreserved)]
    assert attempt.about["strength"] == 1
    unit = Projection(target.differences()[attempt.about["layer"]][None]).A[:, 0].float()
    writers = [m for b in lm.model.model.layers for m in (b.self_attn.o_proj, b.mlp.down_proj)]
    before = [writer.weight.clone() for writer in writers]
    with attempt.applied(lm):
        after = [writer.weight.clone() for writer in writers]
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(was.norm(dim=0), now.norm(dim=0), rtol=1e-4, atol=1e-6)
        assert (unit @ now).abs().max() < 1e-6


def test_attempts_are_the_same_in_the_weights(three: Planted) -> None:
    target, lm = target_of(three), three.lm
    prompts = texts(three.val.harmful)[:4]
    for name in ("sd", "layerwise"):
        attempt = next(make_attack(name).attempts(target, 1))[0]
        with attempt.applied(lm):
            hooked = first_token_log_probabilities(lm, prompts, 4)
        with attempt.edited(lm):
            edited = first_token_log_probabilities(lm, prompts, 4)
        torch.testing.assert_close(edited, hooked, rtol=0, atol=1e-3)
    repack(lm.model)


def test_a_reply_is_opened_with_the_models_own_ablated_words(one: Planted) -> None:
    target, prompts = target_of(one), texts(one.val.harmful)[:3]
    attempt = next(make_attack("prefill", {"lengths": (2,)}).attempts(target, 1))[0]
    opened = attempt.openings(one.lm, prompts, 4)
    assert opened == [one.lm.text_ids(" ".join(ANSWER[:2]))] * 3
    answers = replies(asking_of(one), [attempt], prompts)
    assert answers == [[" ".join(ANSWER)] * 3]


def test_what_is_made_is_kept_for_whoever_goes_on(three: Planted, tmp_path: Path) -> None:
    first = target_of(three, folder=tmp_path)
    scores = first.screened_layers()
    attempt = next(make_attack("sd").attempts(first, 1))[0]
    shares = first.first_token_scores(attempt)
    again = target_of(three, folder=tmp_path)
    again.lm = replace(three.lm, model=None)  # nothing can be computed
    assert again.first_token_scores(attempt) == shares
    assert again.screened_layers() == scores


def test_layers_under_which_replies_derail_are_tried_last(one: Planted) -> None:
    """However little they refuse; replies are fed back where the first token does not tell."""
    plain = target_of(one).screened_layers()
    unclear = {score.layer for score in plain if score.kl <= BUDGETS[-1]}
    first, second = plain[0].layer, plain[1].layer
    assert {first, second} <= unclear

    class Derailed(Drift):
        asked: ClassVar[set[int]] = set()

        def under(self, ablation: Any) -> float:
            left = [float(ablation.apply(d[None]).norm() / d.norm()) for d in differences]
            layer = left.index(min(left))
            self.asked.add(layer)
            return 8.5 if layer == first else 0.1

    prompts = texts(one.val.harmless)[:3]
    target = target_of(one, drift=Derailed(one.lm, prompts, [" ".join(ANSWER)] * 3, 8, tokens=6))
    differences = target.differences()
    found = [score.layer for score in target.screened_layers()]
    assert Derailed.asked == unclear
    assert found[0] == second
    assert found.index(first) >= len(unclear) - 1


def test_a_first_token_far_from_its_own_puts_a_layer_last(one: Planted, tmp_path: Path) -> None:
    """That it opens with no refusal is then no merit."""
    target = target_of(one, folder=tmp_path)
    babble, gentle, between = [-10.0, 11.8, 11.8], [-2.0, 0.07, 0.05], [-7.0, 0.11, 0.2]
    rows = [babble, gentle, [-9.0, 0.02, 8.5], between]
    target.kept("screen, drift on 0 replies", lambda: {"scores": torch.tensor(rows)})
    assert [score.layer for score in target.screened_layers()] == [1, 3, 0, 2]


@pytest.mark.parametrize("name", ["transfer", "strip"])
def test_what_needs_a_second_model_says_so(name: str, three: Planted) -> None:
    with pytest.raises(InputError, match="name one with --against"):
        next(make_attack(name).attempts(target_of(three), 1))


def test_a_second_model_that_is_the_first_has_nothing_to_strip(three: Planted) -> None:
    with pytest.raises(InputError, match="no difference to take back"):
        next(make_attack("strip").attempts(target_of(three, other=three.lm), 1))


def test_an_unknown_attack_or_setting_is_refused() -> None:
    with pytest.raises(InputError, match="it must be one of sd, som, kmeans"):
        make_attack("nonsense")
    with pytest.raises(InputError, match="has no setting 'layer': it has layers, grids, ks"):
        make_attack("som", {"layer": 3})


def _rounds(attack: Attack, target: Target) -> Iterator[list[Attempt]]:
    """Round after round, as if none had any effect."""
    rounds = attack.attempts(target, 1_000)
    batch = next(rounds)
    while True:
        yield batch
        batch = rounds.send([Outcome(0.0, 1.0, 0.0, 0.0, 0.1)] * len(batch))


def test_a_set_that_broke_the_model_is_no_end_of_a_search_and_never_its_best() -> None:
    """Its drift is no number."""
    pools = [Pool("p", torch.randn(8, 12, generator=torch.Generator().manual_seed(0)))]
    rounds = SetSearch("som", pools, [2], seed=0).rounds()
    made = [next(rounds)]
    for _ in range(5):
        kl = math.nan if len(made) % 2 else 0.1
        made.append(rounds.send([Outcome(0.2, 0.8, 0.0, 0.0, kl) for _ in made[-1]]))
    assert len({attempt.name for batch in made for attempt in batch}) == 6
    broken, gentle = Outcome(0.2, 0.8, 0.0, 0.0, math.nan), Outcome(0.2, 0.8, 0.0, 0.0, 0.1)
    assert mixed([broken, gentle], 0.25)[0] < mixed([broken, gentle], 0.25)[1]
