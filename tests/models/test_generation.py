"""Greedy completions against transformers' own generate, one prompt at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from architectures import ARCHITECTURES, language_model
from judging import ROWS
from somatlas import Projection
from somatlas.ablation import RowProjections
from somatlas.judges import is_refusal, is_settled_refusal
from somatlas.measures.layer_rule import first_token_log_probabilities
from somatlas.models import batches
from somatlas.models.batches import Batch, within_memory
from somatlas.models.generation import first_reply_tokens, generate
from somatlas.models.language_model import LanguageModel
from somatlas.representations.extract import residual_stream

PROMPTS = [
    "Hi",
    "A much longer prompt that goes on for a while, so that batches need padding",
    "Where is the station?",
    "",
    "Name a river",
]
TOKENS = 12


def reference_ids(lm: LanguageModel, prompt: str, tokens: int = TOKENS) -> list[int]:
    """What transformers makes of a single prompt without padding, as token ids."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=1, pad_token_id=2
    )
    ids = torch.tensor([lm.token_ids(prompt)])
    output: list[int] = lm.model.generate(ids, generation_config=config)[0].tolist()
    return output[ids.shape[1] :]


def reference(lm: LanguageModel, prompt: str, tokens: int = TOKENS) -> str:
    """The same as text."""
    ids = reference_ids(lm, prompt, tokens)
    return lm.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("shares_head", [True, False])
def test_batches_generate_what_transformers_does(
    tiny: LanguageModel, batch_size: int, shares_head: bool
) -> None:
    lm = replace(tiny, shares_head=shares_head)
    assert tiny.shares_head
    replies = generate(lm, PROMPTS, max_new_tokens=TOKENS, batch_size=batch_size)
    assert replies == [reference(tiny, prompt) for prompt in PROMPTS]
    assert len(set(replies)) > 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_generates_what_transformers_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of unequal length read each by itself, where keys and values can be joined."""
    lm = language_model(name)
    monkeypatch.setattr(batches, "_FEWEST_ROWS", 1)
    replies = generate(lm, PROMPTS, max_new_tokens=6, batch_size=8)
    assert replies == [reference(lm, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_takes_ablations_side_by_side(name: str) -> None:
    """First-token log p is that of one ablation at a time, behind heads of an odd and of an even
    length, which all rows share."""
    lm = language_model(name)
    generator = torch.Generator().manual_seed(0)
    edits = [Projection(torch.randn(k, lm.d_model, generator=generator)) for k in (1, 2)]
    rows = RowProjections(edits)
    for start in ("Name", "Name a"):
        prompts = [f"{start} river", f"{start} lake and a sea"]
        found = torch.zeros(4, lm.limits.vocabulary)
        with lm.ablate(rows):
            for places, log_p in lm.next_token_log_probabilities(prompts, 8, rows):
                found[places] = log_p
        alone = []
        for edit in edits:
            with lm.ablate(edit):
                alone.append(first_token_log_probabilities(lm, prompts, 1))
        torch.testing.assert_close(found, torch.cat(alone), rtol=1e-3, atol=1e-3)


def test_padding_behind_a_shared_head_pushes_no_token_out_of_a_local_attention() -> None:
    """GPT-Neo's, which its cache knows nothing of: 256 columns."""
    lm = language_model("GPT-Neo")
    prompts = [f"{'x' * 300}", "Name a river"]
    assert first_reply_tokens(lm, prompts, 6, 2) == [
        first_reply_tokens(lm, [prompt], 6, 1)[0] for prompt in prompts
    ]
    log_p = first_token_log_probabilities(lm, prompts, 2)
    for row, prompt in enumerate(prompts):
        logits = lm.model(torch.tensor([lm.token_ids(prompt)])).logits[0, -1]
        torch.testing.assert_close(log_p[row], logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_most_architectures_share_the_head_of_their_prompts() -> None:
    """Those that do not have recurrent mixers, whose state is no cache of keys, sparse attention,
    whose cache holds more than keys, or, MPT, biases by a token's place in the row."""
    without = {name for name in ARCHITECTURES if not language_model(name).shares_head}
    assert without == {
        *("Bailing-Hybrid", "Bamba", "Falcon-H1", "Falcon-Mamba", "Granite-MoE-Hybrid", "Jamba"),
        *("LFM2", "LFM3", "MPT", "Mamba", "Mamba2", "MiniMax", "OLMo-Hybrid", "Qwen3-Next"),
        *("Qwen3.5", "Qwen3.5 (image-text)", "Qwen3.5-MoE", "RecurrentGemma", "xLSTM"),
        *("Inkling", "Kimi-Linear", "LFM2-MoE", "Lara-Mini", "Nemotron-H"),
        *("AX-K2", "DeepSeek-V3.2", "GLM-5", "MiniMax-M3", "Mistral-Large4", "dots3-note"),
    }


def test_rows_that_have_ended_change_nothing_for_the_others(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {p: reference_ids(tiny, p) for p in PROMPTS}
    stop = ids[PROMPTS[1]][2]
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", [1, stop])
    replies = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=8)
    lengths = set()
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        end = ids[prompt].index(stop) if stop in ids[prompt] else TOKENS
        lengths.add(end)
        assert reply.ended is (len(ids[prompt][:end]) < TOKENS)
        assert reply == tiny.tokenizer.decode(ids[prompt][:end], skip_special_tokens=True).strip()
    assert len(lengths) > 1


def test_a_reply_that_is_stopped_from_outside_has_not_ended(tiny: LanguageModel) -> None:
    whole = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=8)
    cut = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=8, watch=lambda texts: [*texts])
    assert not any(reply.ended for reply in cut)
    assert any(len(one) < len(other) for one, other in zip(cut, whole, strict=True))


@pytest.mark.parametrize("fewest", [1, 16])
def test_ablations_side_by_side_equal_one_after_another(
    tiny: LanguageModel, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unequal rank, in one batch and in several, prompts read in one part and in several, rows
    ending early in between."""
    monkeypatch.setattr(batches, "_FEWEST_ROWS", fewest)
    generator = torch.Generator().manual_seed(0)
    projections = [Projection(torch.randn(k, tiny.d_model, generator=generator)) for k in (1, 3, 2)]
    for batch_size in (4, 64):
        rows = RowProjections(projections)
        with tiny.ablate(rows):
            together = generate(
                tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=batch_size, ablations=rows
            )
        alone = []
        for projection in projections:
            with tiny.ablate(projection):
                alone += [reference(tiny, prompt) for prompt in PROMPTS]
        assert together == alone
    assert len(set(alone)) > len(PROMPTS)


def test_a_reply_opened_with_its_own_first_words_goes_on_as_before(tiny: LanguageModel) -> None:
    """Beside other ablations too, where every lane has the same openings."""
    whole = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=4)
    opened = first_reply_tokens(tiny, PROMPTS, 3, 4)
    short = {"max_new_tokens": TOKENS - 3, "batch_size": 4, "openings": opened}
    going_on = [i for i, ids in enumerate(opened) if len(ids) == 3]
    assert len(going_on) > 1
    replies = generate(tiny, PROMPTS, **short)  # type: ignore[arg-type]
    assert [replies[i] for i in going_on] == [whole[i] for i in going_on]
    rows = RowProjections([Projection(torch.eye(tiny.d_model)[:1])] * 2)
    with tiny.ablate(rows):
        both = generate(tiny, PROMPTS, ablations=rows, **short)  # type: ignore[arg-type]
    assert both[: len(PROMPTS)] == both[len(PROMPTS) :]
    assert both[: len(PROMPTS)] != replies


def test_a_row_that_the_watch_names_ends_there_and_no_other(tiny: LanguageModel) -> None:
    whole = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=8)
    asked: list[Mapping[int, str]] = []

    def watch(texts: Mapping[int, str]) -> list[int]:
        asked.append(texts)
        return [2] if 2 in texts else []

    replies = generate(tiny, PROMPTS, max_new_tokens=TOKENS, batch_size=8, watch=watch)
    assert [2 in texts for texts in asked] == [True] + [False] * (len(asked) - 1)
    assert len(asked) > 1
    for row, (got, expected) in enumerate(zip(replies, whole, strict=True)):
        assert got == expected if row != 2 else expected.startswith(got) and got != expected


def test_a_refusal_that_is_settled_stays_one_whatever_follows() -> None:
    """Over all beginnings of the labelled replies; and most refusals are settled early."""
    early = total = 0
    for row in ROWS:
        reply = row["reply"]
        settled = [end for end in range(len(reply)) if is_settled_refusal(reply[:end])]
        assert not settled or is_refusal(reply), reply
        if is_refusal(reply):
            total += 1
            early += bool(settled)
    assert early > 0.8 * total > 20
    assert not is_settled_refusal("No,")
    assert not is_refusal("No, problem")


@pytest.mark.parametrize("shares_head", [True, False])
def test_first_tokens_are_those_of_single_prompts(tiny: LanguageModel, shares_head: bool) -> None:
    lm = replace(tiny, shares_head=shares_head)
    log_p = first_token_log_probabilities(lm, PROMPTS, 3)
    for row, prompt in enumerate(PROMPTS):
        logits = tiny.model(torch.tensor([tiny.token_ids(prompt)])).logits[0, -1]
        torch.testing.assert_close(log_p[row], logits.log_softmax(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_too_large_for_the_memory_is_halved(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Replies, representations and log p are the same, and later batches are dealt smaller."""
    prompts = [f"{'word ' * i}end" for i in range(9)]
    expected = generate(tiny, prompts, max_new_tokens=5, batch_size=8)
    vectors = residual_stream(tiny, prompts, [0, 2], batch_size=8)
    forward, sizes = type(tiny.model.get_decoder()).forward, []

    def small(self: Any, *args: Any, **inputs: Any) -> Any:
        rows = len(inputs["input_ids"])
        sizes.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate much")
        return forward(self, *args, **inputs)

    monkeypatch.setattr(type(tiny.model.get_decoder()), "forward", small)
    assert generate(tiny, prompts, max_new_tokens=5, batch_size=8) == expected
    failed = [rows for rows in sizes if rows > most]
    assert failed == [rows for rows in (8, 4, 2) if rows > most]
    torch.testing.assert_close(
        residual_stream(tiny, prompts, [0, 2], batch_size=8), vectors, rtol=1e-4, atol=1e-5
    )
    if most == 1:
        return  # the head of two lanes is two rows
    projections = RowProjections([Projection(torch.eye(32)[:2]), Projection(torch.eye(32)[3:5])])
    with tiny.ablate(projections):
        lanes = generate(tiny, prompts, max_new_tokens=5, batch_size=8, ablations=projections)
    monkeypatch.undo()
    with tiny.ablate(projections):
        assert lanes == generate(
            tiny, prompts, max_new_tokens=5, batch_size=8, ablations=projections
        )


def test_on_a_cpu_fewer_rows_share_a_batch_where_their_keys_would_fill_the_memory(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"Name {i:02} rivers." for i in range(40)]
    longest = len(tiny.token_ids(prompts[0])) + 4
    token = 4 * 2 * 2 * 8 * 4  # bytes: layers, groups, keys and values, width, float32
    for rows, sizes in ((40, [40]), (24.5, [20, 20]), (2, [14, 14, 12])):
        monkeypatch.setattr(batches, "_CACHE_BYTES", rows * token * longest)
        weights = sum(p.numel() * 4 for p in tiny.model.parameters())
        assert weights // 4 < 16 * token * longest
        assert [len(b.rows) for b in tiny.batches(prompts, 64, room=4)] == sizes
    assert generate(tiny, prompts, max_new_tokens=4, batch_size=40) == [
        reference(tiny, prompt, 4) for prompt in prompts
    ]


def _head(batch: Batch) -> int:
    return batch.attention_mask.shape[1] - batch.input_ids.shape[1]


def test_prompts_that_nothing_is_generated_behind_are_padded_little(tiny: LanguageModel) -> None:
    prompts = ["River " * (1 + i % 20) for i in range(100)]
    width = {len(tiny.token_ids(prompt)) for prompt in prompts}
    assert max(width) > 2 * min(width)
    dealt = list(tiny.batches(prompts, 64))
    assert sorted(row for batch in dealt for row in batch.rows) == list(range(100))
    assert all(16 <= len(batch.rows) <= 64 for batch in dealt[:-1])
    decoded = list(tiny.batches(prompts, 64, room=1))
    assert [len(batch.rows) for batch in decoded] == [64, 36]
    for some, least in ((dealt, 0.85), (decoded, 0.5)):
        columns = sum(batch.input_ids.numel() for batch in some)
        own = sum(len(tiny.token_ids(p)) for p in prompts) - len(prompts) * _head(some[0])
        assert least < own / columns < least + 0.2


def test_a_single_row_too_large_for_the_memory_is_an_error(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    batches = tiny.batches(["Hi", "Ho"], 2)
    monkeypatch.setattr(type(tiny.model.get_decoder()), "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(next(batches), lambda batch: [tiny.model(**batch.inputs)])
