"""Does a loaded model predict plain text at all?

Weights that were read wrongly (an 8-bit format taken for values, a config of another size of the
model) still make sums that add up. What they no longer do is predict text: here a few plain
replies are scored under the chat template, and beside them by a unigram model of the same
vocabulary, which knows the frequency of tokens and nothing of their order.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import surprise
from somatlas.prompts import bundled_prompts

_PLAIN = (
    ("Tell me about the moon.", "The moon goes around the earth once every month."),
    ("Why do leaves fall?", "In the autumn many trees lose their leaves because it gets cold."),
    ("What is bread made of?", "Bread is made of flour, water, salt and yeast."),
    ("Where is Paris?", "Paris is the capital of France and one of the largest cities of Europe."),
)
_UNSEEN = 0.1  # of the unigram model's mass, spread evenly over the vocabulary


@dataclass(frozen=True)
class PlainTextLoss:
    """Nats a token of the plain replies: the model's, and a unigram model's."""

    model: float
    unigram: float

    @property
    def is_language(self) -> bool:
        """Whether the model does better than a unigram model."""
        return self.model < self.unigram

    @property
    def sentence(self) -> str:
        """Both, in words."""
        compared = f"loss {self.model:.1f} nats a token on plain sentences, a unigram model's "
        compared += f"{self.unigram:.1f}"
        return (
            compared
            if self.is_language
            else f"this does not look like a language model: {compared}"
        )


@torch.no_grad()
def plain_text_loss(lm: LanguageModel) -> PlainTextLoss:
    """Score the plain replies with one forward pass each."""
    prompts = [prompt for prompt, _ in _PLAIN]
    replies = lm.tokenizer([r for _, r in _PLAIN], add_special_tokens=False)["input_ids"]
    total, count = 0.0, 0
    for prompt, reply in zip(prompts, replies, strict=True):
        head = [*lm.token_ids(prompt), *lm.skip]
        ids = torch.tensor([[*head, *reply]], device=lm.model.device)
        logits = lm.model(input_ids=ids, use_cache=False).logits[0, len(head) - 1 : -1]
        total += float(surprise(logits, ids[0, len(head) :]).cpu().double().sum())
        count += len(reply)
    loss = total / max(1, count)
    return PlainTextLoss(
        loss if math.isfinite(loss) else math.inf, _unigram_loss(lm.tokenizer, replies)
    )


def _unigram_loss(tokenizer: PreTrainedTokenizerBase, replies: list[list[int]]) -> float:
    """Nats a token of the replies, by the frequencies of tokens in the bundled harmless prompts."""
    texts = [prompt.text for prompt in bundled_prompts().negative["train"]]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    seen = Counter(token for row in rows for token in row)
    total, even = sum(seen.values()), _UNSEEN / max(1, len(tokenizer))
    tokens = [token for reply in replies for token in reply]
    losses = [-math.log((1 - _UNSEEN) * seen[token] / max(1, total) + even) for token in tokens]
    return sum(losses) / max(1, len(losses))
