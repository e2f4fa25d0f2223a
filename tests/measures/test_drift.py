"""Multi-token KL against a plain computation, one reply at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from somatlas import Projection
from somatlas.measures.drift import MORE_REPLY_TOKENS, REPLY_TOKENS, Drift
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel

PROMPTS = ["Hi", "A longer prompt that needs some more room", "Where is it?"]


def reference(
    lm: LanguageModel, projection: Projection, replies: list[str], tokens: int = REPLY_TOKENS
) -> float:
    means = []
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        tail = lm.tokenizer(reply, add_special_tokens=False)["input_ids"][:tokens]
        head = [*lm.token_ids(prompt), *lm.skip]
        ids = torch.tensor([[*head, *tail]])
        base = lm.model(ids).logits[0].double().log_softmax(-1)
        with lm.ablate(projection):
            ablated = lm.model(ids).logits[0].double().log_softmax(-1)
        places = range(len(head) - 1, len(head) + len(tail) - 1)
        kls = [float((base[p].exp() * (base[p] - ablated[p])).sum()) for p in places]
        means.append(sum(kls) / len(kls))
    return sum(means) / len(means)


@torch.no_grad()
@pytest.mark.parametrize("skip", [(), (7, 8, 9)])  # what ends the reasoning of one that reasons
@pytest.mark.parametrize("batch_size", [1, 3])
def test_drift_is_the_mean_over_replies_of_their_mean_kl_a_token(
    tiny: LanguageModel, batch_size: int, skip: tuple[int, ...]
) -> None:
    tiny = replace(tiny, skip=skip)
    replies = generate(tiny, PROMPTS, max_new_tokens=20, batch_size=3)
    replies[2] = replies[2][:3]
    projection = Projection(torch.randn(2, 32, generator=torch.Generator().manual_seed(1)))
    drift = Drift(tiny, PROMPTS, replies, batch_size)
    assert drift.under(projection) == pytest.approx(reference(tiny, projection, replies), rel=1e-4)
    assert drift.n_tokens(REPLY_TOKENS) <= 3 * REPLY_TOKENS


@torch.no_grad()
def test_one_pass_gives_drift_over_several_counts_of_tokens(tiny: LanguageModel) -> None:
    replies = generate(tiny, PROMPTS, max_new_tokens=40, batch_size=3)
    replies[2] = "abcdefghijklmnopqrst"  # bytes are tokens: 20, between the two counts
    projection = Projection(torch.randn(2, 32, generator=torch.Generator().manual_seed(1)))
    drift = Drift(tiny, PROMPTS, replies, 3, MORE_REPLY_TOKENS)
    passes = []
    handle = tiny.model.register_forward_hook(lambda *_: passes.append(1))
    found = drift.over_tokens(projection, REPLY_TOKENS, MORE_REPLY_TOKENS)
    handle.remove()
    assert len(passes) == 1
    for tokens, values in found.items():
        expected = reference(tiny, projection, replies, tokens)
        assert sum(values) / len(values) == pytest.approx(expected, rel=1e-4)
    assert found[MORE_REPLY_TOKENS] == drift.by_reply(projection)
    alone = Drift(tiny, PROMPTS, replies, 3).by_reply(projection)
    assert found[REPLY_TOKENS] == pytest.approx(alone, rel=1e-4)
    counted = [min(MORE_REPLY_TOKENS, len(tiny.tokenizer.encode(r))) for r in replies[:2]]
    assert drift.n_tokens(MORE_REPLY_TOKENS) == sum(counted) + 20
    assert drift.n_shorter(MORE_REPLY_TOKENS) == 1 + sum(c < MORE_REPLY_TOKENS for c in counted)
    assert drift.n_shorter(REPLY_TOKENS) == sum(c < REPLY_TOKENS for c in counted)


def test_empty_replies_have_no_drift(tiny: LanguageModel) -> None:
    projection = Projection(torch.ones(1, 32))
    assert Drift(tiny, ["Hi"], [""], 2).under(projection) == 0


@torch.no_grad()
def test_between_models_padded_to_different_widths_it_is_over_the_tokens_of_both(
    tiny: LanguageModel,
) -> None:
    wide = replace(tiny, model=copy.deepcopy(tiny.model))
    wide.model.resize_token_embeddings(tiny.model.config.vocab_size + 64, mean_resizing=False)
    wide.model.lm_head.weight[: tiny.model.config.vocab_size] *= 1.5
    replies = ["Yes", "", "The road is long"]
    drift = Drift(tiny, PROMPTS, replies, 3)
    drift.lm, drift.batch_size = wide, 1  # whose batches are others
    means = []
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        head, tail = tiny.token_ids(prompt), tiny.text_ids(reply)
        ids = torch.tensor([[*head, *tail]])
        places = range(len(head) - 1, len(head) + len(tail) - 1)
        base, other = (
            lm.model(ids).logits[0, places, : tiny.model.config.vocab_size].double().log_softmax(-1)
            for lm in (tiny, wide)
        )
        means += [float((base.exp() * (base - other)).sum(-1).mean())] if tail else []
    assert drift.by_reply(None) == pytest.approx(means, rel=1e-4)
    assert min(means) > 0
