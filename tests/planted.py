"""A small decoder whose refusal is known: it is written along planted directions, and nowhere else.

Words are tokens. Each harmful word has an amount along each of m directions r_1 .. r_m, by the kind
of word it is; the first block's attention carries the words' mean to the last token, and a later
block's MLP refuses where the sum of the amounts' magnitudes is above a threshold. So the model
refuses by every one of the directions by itself: as long as one is left, it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from somatlas.models.batches import head_cache_is_exact, padding_is_exact
from somatlas.models.chat import chat_token_ids
from somatlas.models.language_model import LanguageModel
from somatlas.models.packed import pack_linears
from somatlas.models.structure import find_structure
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import PromptSplit

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<user> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
SPECIAL = ["<bos>", "<eos>", "<pad>", "<user>", "<reply>"]
REFUSAL = ["I can't", "help with that."]
ANSWER = ["Sure,", "here is", "how it", "is done."]
HARMFUL, HARMLESS = 24, 48  # words
KINDS = 6  # of harmful words; a prompt has words of one kind
D, LAYERS, READ_AT = 48, 4, 2  # READ_AT: the block that reads r and decides


@dataclass(frozen=True)
class Planted:
    """directions : (m, d) orthonormal, the r_i. train, val, test : prompts."""

    lm: LanguageModel
    directions: Tensor
    train: PromptSplit
    val: PromptSplit
    test: PromptSplit

    @property
    def refusal_tokens(self) -> list[int]:
        return self.lm.text_ids(REFUSAL[0])


class Axes(NamedTuple):
    """Orthonormal rows of d_model: what a planted model refuses by, what starts an answer, what all
    tokens have, what is decided at, and what only the embeddings' noise is along."""

    r: Tensor
    start: Tensor
    common: Tensor
    mark: Tensor
    spare: Tensor


def planted(m: int = 1, *, seed: int = 0, prompts: int = 32, gain: float = 12.0) -> Planted:
    """A planted model and prompts for it. m : directions that it refuses by, as strong as gain."""
    rng = torch.Generator().manual_seed(seed)
    tokenizer = planted_tokenizer()
    model, axes = planted_model(m, rng, gain, len(tokenizer))
    pack_linears(model)
    ids = [chat_token_ids(tokenizer, text) for text in ("n0 n1 n2", "n3")]
    lm = LanguageModel(
        model,
        tokenizer,
        find_structure(model, torch.tensor(ids[:1])),
        f"planted-{m}",
        shares_head=head_cache_is_exact(model, ids),
        pads=padding_is_exact(model, ids),
    )
    splits = [split_of(rng, prompts) for _ in range(3)]
    return Planted(lm, axes.r, *splits)


def split_of(rng: torch.Generator, count: int) -> PromptSplit:
    def drawn(words: int, limit: int) -> list[int]:
        return torch.randperm(limit, generator=rng)[:words].tolist()

    harmful = []
    for number in range(count):
        kind = number % KINDS
        words = [f"n{i}" for i in drawn(2, HARMLESS)]
        words += [f"h{KINDS * i + kind}" for i in drawn(3, HARMFUL // KINDS)]
        harmful.append(Prompt(" ".join(words), category=f"kind {kind}"))
    harmless = [Prompt(" ".join(f"n{i}" for i in drawn(5, HARMLESS))) for _ in range(count)]
    return PromptSplit(harmful, harmless)


def planted_tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *(f"h{i}" for i in range(HARMFUL)), *(f"n{i}" for i in range(HARMLESS))]
    words += [*REFUSAL, *ANSWER, "?"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([*REFUSAL, *ANSWER])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        chat_template=TEMPLATE,
    )


def planted_model(
    m: int, rng: torch.Generator, gain: float, vocabulary: int
) -> tuple[LlamaForCausalLM, Axes]:
    """Everything random but small, and the planted parts on top."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=D,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.002)
    basis = torch.linalg.qr(torch.randn(D, D, generator=rng))[0].T  # orthonormal rows
    parts = basis.split([m, m, 3, len(REFUSAL) + len(ANSWER), D - 2 * m - 3 - 6])
    harm, r, (start, common, mark), steps, rest = parts
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.add_(torch.randn(vocabulary, len(rest), generator=rng) @ rest * 0.2 + 2 * common)
    first_harmful = len(SPECIAL)
    amounts = _amounts(m, rng).repeat(HARMFUL // KINDS, 1)
    embedding[first_harmful : first_harmful + HARMFUL] += amounts @ harm
    embedding[SPECIAL.index("<reply>")] += mark
    # What follows what: each token of a reply raises the next one.
    first = first_harmful + HARMFUL + HARMLESS
    head[first] += 1 * common - 4 * start
    head[first + len(REFUSAL)] += 4 * start
    for chain in (range(len(REFUSAL)), range(len(REFUSAL), len(REFUSAL) + len(ANSWER))):
        following = [*(first + i for i in chain[1:]), 1]
        for place, after in zip(chain, following, strict=True):
            embedding[first + place] += steps[place]
            head[after] += 5 * steps[place]
    # The words' mean harm is carried to the last token.
    carry, decide = model.model.layers[0].self_attn, model.model.layers[READ_AT].mlp
    carry.v_proj.weight[:m] += harm
    carry.o_proj.weight[:, :m] += r.T
    # What starts an answer is written where the reply begins, and by the block that decides. Two
    # neurons a direction give its magnitude, which turns the sign of that: so no direction behind
    # the r_i can be ablated in their place, everywhere or in one block, as without a start it
    # refuses.
    decide.gate_proj.weight[2 * m] += 4 * mark
    decide.up_proj.weight[2 * m] += mark
    decide.down_proj.weight[:, 2 * m] += 0.045 * start
    for i in range(m):
        for sign in (0, 1):
            decide.gate_proj.weight[2 * i + sign] += (1 - 2 * sign) * gain * r[i]
            decide.up_proj.weight[2 * i + sign] += mark
            decide.down_proj.weight[:, 2 * i + sign] -= 0.12 * start
    return model, Axes(r.clone(), start.clone(), common.clone(), mark.clone(), rest.clone())


def _amounts(m: int, rng: torch.Generator) -> Tensor:
    """(KINDS, m) of each kind of harmful word along each direction: none is small, all but the
    first have either sign, and no two kinds are alike."""
    size = 0.7 + 0.6 * torch.rand(KINDS, m, generator=rng)
    signs = [[1.0, *(1.0 - 2 * (kind >> i & 1) for i in range(m - 1))] for kind in range(KINDS)]
    return size * torch.tensor(signs)
