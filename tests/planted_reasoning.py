"""A planted model that reasons: one thought between marks, then the answer.

Its thought says that the request is harmful where the model reads harm along r, or else that it is
fine. The answer is decided where the reasoning ends: it refuses by r, as the thought is decided,
or by a direction t of its own, which no edit of r touches. A thought that the request is harmful
raises t, one that it is fine lowers it, and so do words: those of every other kind raise it enough
to be refused without a thought, and harmless ones half as much, so that t tells nothing of harm.

So with r ablated it answers everything behind a thought of its own, nothing behind those of the
unedited model, and every other kind of request without a thought.
"""

from __future__ import annotations

import torch

from planted import (
    ANSWER,
    HARMFUL,
    HARMLESS,
    KINDS,
    READ_AT,
    REFUSAL,
    SPECIAL,
    TEMPLATE,
    Planted,
    planted_model,
    planted_tokenizer,
    split_of,
)
from somatlas.models.chat import find_format
from somatlas.models.language_model import LanguageModel
from somatlas.models.structure import find_structure

OPEN, CLOSE = "<think>", "</think>"
THOUGHTS = ["It is harmful.", "It is fine."]
OFF = f"{{% if enable_thinking is defined and not enable_thinking %}} {CLOSE}{{% endif %}}"
OPENED = TEMPLATE.replace("<reply>", f"<reply> {OPEN}")  # as DeepSeek-R1's
SWITCHED = TEMPLATE.replace("<reply>", f"<reply> {OPEN}{OFF}")  # with a switch as Qwen3's
GAIN = 12.0
WORD, THOUGHT = 0.5, 6.0  # along t
UNEVEN = range(1, KINDS, 2)  # kinds of harmful requests that are answered without a thought


def planted_reasoning(template: str = OPENED, *, prompts: int = 32) -> Planted:
    """A planted model with one direction of refusal whose template opens a block of reasoning."""
    rng = torch.Generator().manual_seed(0)
    tokenizer = planted_tokenizer()
    tokenizer.add_tokens([OPEN, CLOSE, *THOUGHTS])
    tokenizer.chat_template = template
    model, axes = planted_model(1, rng, GAIN, len(tokenizer))
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    own = axes.spare[:5]
    embedding.sub_(embedding @ own.T @ own)
    t_in, t, begun, thought, ended = own
    opened, closed, harmful, fine, refusal, answer = tokenizer.convert_tokens_to_ids(
        [OPEN, CLOSE, *THOUGHTS, REFUSAL[0], ANSWER[0]]
    )
    # What is decided at <reply> in other planted models is decided at either mark: at the first
    # whether to think of harm, at the second whether to refuse.
    embedding[opened] += axes.mark + begun
    embedding[closed] += axes.mark + ended
    head[harmful] += head[refusal] + 5 * begun
    head[fine] += head[answer] + 5 * begun
    head[[harmful, fine]] -= 5 * ended
    embedding[[harmful, fine]] += thought
    head[closed] += 5 * thought
    # Along t: carried as harm is, read at the second mark alone.
    words = torch.zeros(len(tokenizer))
    first = len(SPECIAL)
    words[first : first + HARMFUL] = torch.tensor([WORD, 0.0]).repeat(HARMFUL // 2)
    words[first + HARMFUL : first + HARMFUL + HARMLESS] = WORD / 2
    words[harmful], words[fine] = THOUGHT, -THOUGHT
    embedding += words[:, None] * t_in
    carry, decide = model.model.layers[0].self_attn, model.model.layers[READ_AT].mlp
    carry.v_proj.weight[1] += t_in
    carry.o_proj.weight[:, 1] += t
    place = 3  # a neuron that nothing uses
    decide.gate_proj.weight[place] += 60 * (t - 0.3 * ended)
    decide.up_proj.weight[place] += ended
    decide.down_proj.weight[:, place] -= 0.12 * axes.start
    chat = find_format(tokenizer, "reasoning")
    lm = LanguageModel(
        model,
        tokenizer,
        find_structure(model, torch.tensor([[0, 5, 6, 7]])),
        "planted-reasoning",
        shares_head=False,
        chat=chat,
        skip=(closed,),
    )
    return Planted(lm, axes.r, *(split_of(rng, prompts) for _ in range(3)))
