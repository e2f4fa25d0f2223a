"""The attack by gradient: its gradients, and directions that it must recover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from architectures import build, language_model
from attacking import carried_out
from planted import HARMFUL, HARMLESS, KINDS, READ_AT, SPECIAL, Planted, planted
from somatlas.attacks.attack import Ablated
from somatlas.attacks.attack_registry import make_attack
from somatlas.attacks.gradient import Goal, answer_openings, optimised_span
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models.generation import first_reply_tokens
from somatlas.models.structure import find_structure
from somatlas.prompts.prompt_set import texts

GAIN = 40.0
FIRST = len(SPECIAL) + HARMFUL + HARMLESS  # the token that opens a refusal


def written_out(m: int) -> tuple[Planted, list[int]]:
    """A model whose refusal is m known vectors and nothing else, and the tokens that open it.

    A harmful word of kind i holds r_(i mod m), attention carries it to the last token, and the head
    reads it: token FIRST + i where it is positive. A shift to the other side is no way out: there
    another token is read.
    """
    model = planted(m)
    decoder, r = model.lm.model.model, model.directions
    carry = decoder.layers[0].self_attn.v_proj.weight[:m]
    embedding = decoder.embed_tokens.weight
    for others in (torch.linalg.qr(carry.T)[0], r.T):
        embedding -= (embedding @ others) @ others.T
    embedding[len(SPECIAL) : len(SPECIAL) + HARMFUL] += r[torch.arange(HARMFUL) % KINDS % m]
    carry.copy_(r)
    decoder.layers[READ_AT].mlp.down_proj.weight[:, : 2 * m] = 0  # read by nothing else
    model.lm.model.lm_head.weight[FIRST : FIRST + m] = GAIN * r
    model.lm.model.lm_head.weight[len(SPECIAL) : len(SPECIAL) + m] = -GAIN * r
    return model, [FIRST + i for i in range(m)]


def goal_of(model: Planted, refusal_tokens: list[int]) -> Goal:
    harmless = texts(model.train.harmless)
    openings = first_token_log_probabilities(model.lm, harmless, 64)
    return Goal(
        model.lm,
        texts(model.train.harmful),
        answer_openings(openings, refusal_tokens),
        harmless,
        first_reply_tokens(model.lm, harmless, 4, 64),
        batch_size=16,
    )


@pytest.mark.parametrize(("m", "seeds"), [(1, [0]), (2, [1, 2])])
def test_the_best_random_start_finds_the_vectors_that_refusal_is(m: int, seeds: list[int]) -> None:
    model, tokens = written_out(m)
    goal = goal_of(model, tokens)
    found: list[tuple[float, Tensor]] = []
    for seed in seeds:
        start = torch.randn(m, model.lm.d_model, generator=torch.Generator().manual_seed(seed))
        begun = torch.nn.functional.normalize(start, dim=1)
        assert torch.linalg.svdvals(begun @ model.directions.T).max() < 0.5
        V = optimised_span(goal, start, 1.0, str(seed), steps=100)
        torch.testing.assert_close(V @ V.T, torch.eye(m))
        losses = (loss(V.T.double(), range(32))[0] for loss in (goal.refusal, goal.drift))
        found.append((sum(losses), V))
    _, best = min(found, key=lambda pair: pair[0])
    assert torch.linalg.svdvals(best @ model.directions.T).min() > 0.95  # cos, principal angles


@pytest.mark.parametrize("name", ["Gemma2", "BLOOM", "DeepSeek-V3"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    lm = language_model(name)
    prompts = ["Hi", "A longer prompt, so that the batch needs padding"]
    goal = Goal(lm, prompts, [70, 71, 72], prompts, [[40, 41, 42], [50]])
    generator = torch.Generator().manual_seed(0)
    drawn, along = torch.randn(2, lm.d_model, 2, generator=generator).double()
    Q, step = torch.linalg.qr(drawn).Q, 4e-4
    for loss in (goal.refusal, goal.drift):
        _, gradient = loss(Q, [0, 1])
        after, before = (loss(Q + sign * step * along, [0, 1])[0] for sign in (1, -1))
        expected = (after - before) / (2 * step)
        assert float((gradient * along).sum()) == pytest.approx(expected, rel=0.02, abs=0.01)
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_half_precision_points_the_same_way() -> None:
    exact = language_model("Llama")
    half = replace(exact, model=build("Llama").to(torch.bfloat16))
    half = replace(half, structure=find_structure(half.model, torch.tensor([[5, 6, 7, 8]])))
    Q = torch.linalg.qr(torch.randn(32, 2, generator=torch.Generator().manual_seed(0)).double()).Q
    one, other = (
        Goal(lm, ["Hi", "Hello there"], [70], ["Hi"], [[40]]).refusal(Q, [0, 1])[1].flatten()
        for lm in (exact, half)
    )
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99


def test_the_attack_adapts_its_penalty_and_is_replayed_from_its_outcomes(tmp_path: Path) -> None:
    model = planted(1)
    attack = make_attack("gradient", {"ks": (1,), "steps": 15})
    found = carried_out(attack, model, 3, folder=tmp_path)
    starts = [attempt.about["start"] for attempt, _ in found]
    assert [start.split()[0] for start in starts] == ["layer", "random", "layer"]
    assert starts[0] != starts[2]
    assert found[0][1].asr == 1.0
    assert found[0][1].kl < 0.05
    weights = [attempt.about["drift_weight"] for attempt, _ in found]
    assert weights[:2] == [1.0, 4.0]
    again = carried_out(attack, model, 3, folder=tmp_path)
    assert [a for a, _ in again] == [a for a, _ in found]
    for (one, _), (other, _) in zip(found, again, strict=True):
        assert isinstance(one, Ablated)
        assert isinstance(other, Ablated)
        torch.testing.assert_close(one.projection.A, other.projection.A, rtol=0, atol=0)
