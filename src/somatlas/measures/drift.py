"""What an ablation does to replies that should not change: KL over several tokens.

The unchanged model's own replies to harmless prompts are fed back, and at each of their tokens the
ablated model's distribution of the next one is compared with the unchanged model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from somatlas.ablation import Ablation
from somatlas.numerics.probabilities import log_probabilities

if TYPE_CHECKING:
    from somatlas.models.language_model import LanguageModel

REPLY_TOKENS = 16  # of each reply; the vocabulary's log p of each is kept
MORE_REPLY_TOKENS = 32  # loops and other faults set in later than the first 16
_LOGITS = 2**24  # that are held of a forward pass: 64 MB in float32, and a few copies


class Drift:
    """KL(base || ablated) in nats a token, on the unchanged model's own replies.

    prompts, replies : harmless prompts and what the unchanged model answered. tokens : how many of
    each reply count at most; of a shorter one, those that it has. Empty replies count for nothing.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[str],
        replies: Sequence[str],
        batch_size: int,
        tokens: int = REPLY_TOKENS,
    ) -> None:
        self.lm, self.prompts, self.batch_size = lm, list(prompts), batch_size
        self.tokens, self._texts = tokens, list(replies)
        self._samples: dict[int, Drift] = {}
        ids = lm.tokenizer(list(replies), add_special_tokens=False)["input_ids"]
        self.replies = [row[:tokens] for row in ids]
        self._base = [(rows, log_p.cpu()) for rows, log_p in self._log_probabilities()]

    def sample(self, count: int) -> Drift:
        """On `count` of the prompts at most, evenly spread."""
        if count >= len(self.prompts):
            return self
        if count not in self._samples:
            rows = [len(self.prompts) * i // count for i in range(count)]
            prompts, replies = ([side[i] for i in rows] for side in (self.prompts, self._texts))
            made = Drift(self.lm, prompts, replies, self.batch_size, self.tokens)
            self._samples[count] = made
        return self._samples[count]

    def n_tokens(self, tokens: int) -> int:
        """How many tokens the first `tokens` of every reply are together."""
        return sum(min(tokens, len(row)) for row in self.replies)

    def n_shorter(self, tokens: int) -> int:
        """How many replies have fewer than `tokens` tokens."""
        return sum(len(row) < tokens for row in self.replies)

    def under(self, ablation: Ablation | None) -> float:
        """The mean over replies of their mean KL under an ablation; 0 where none has a token.

        None: of the model as it is now, under whatever edit is in force.
        """
        values = self.by_reply(ablation)
        return sum(values) / max(1, len(values))

    def by_reply(self, ablation: Ablation | None) -> list[float]:
        """The mean KL of each reply that has a token, in their order."""
        return self.over_tokens(ablation, self.tokens)[self.tokens]

    def over_tokens(self, ablation: Ablation | None, *counts: int) -> dict[int, list[float]]:
        """`by_reply` over the first tokens of each reply alone, for each of several counts of them.

        All come from the same forward passes; no count may exceed `tokens`.
        """
        found: dict[int, dict[int, float]] = {count: {} for count in counts}
        with self.lm.ablate(ablation):
            for (rows, base), (_, ablated) in zip(
                self._base, self._log_probabilities(), strict=True
            ):
                p = base.to(ablated.device)
                kl = (p.exp() * (p - ablated)).sum(dim=1).double().cpu()
                parts = torch.split(kl, [len(self.replies[row]) for row in rows])
                for row, part in zip(rows, parts, strict=True):
                    for count, means in found.items():
                        means[row] = float(part[:count].mean())
        counted = [row for row, reply in enumerate(self.replies) if reply]
        return {count: [means[row] for row in counted] for count, means in found.items()}

    @torch.no_grad()
    def _log_probabilities(self) -> Iterator[tuple[list[int], Tensor]]:
        """Rows, and (tokens, vocabulary) float32 log p at their replies' tokens, batch by batch."""
        lm = self.lm
        size = _LOGITS // ((self.tokens + 1) * lm.limits.vocabulary)
        size = max(1, min(self.batch_size, size))
        for batch in lm.batches(self.prompts, size, suffixes=self.replies):
            lengths = [len(self.replies[row]) for row in batch.rows]
            longest = max(lengths)
            if longest == 0:
                continue
            logits = lm.logits(batch.inputs, longest + 1)[:, :-1]
            counts = torch.tensor(lengths, device=logits.device)
            places = torch.arange(longest, device=logits.device)
            own = logits[places >= longest - counts[:, None]]
            yield batch.rows, log_probabilities(own)
