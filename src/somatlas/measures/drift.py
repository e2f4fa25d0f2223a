"""What an ablation does to replies that should not change: KL over several tokens.

The unchanged model's own replies to harmless prompts are fed back, and at each of their tokens the
ablated model's distribution of the next one is compared with the unchanged model's. Of a model that
reasons they are its answers, behind reasoning that is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from somatlas.ablation import Ablation
from somatlas.numerics.probabilities import divergence, log_probabilities

if TYPE_CHECKING:
    from somatlas.models.language_model import LanguageModel

REPLY_TOKENS = 16  # of each reply; the vocabulary's log p of each is kept
MORE_REPLY_TOKENS = 32  # loops and other faults set in later than the first 16
_BROKEN = 1e3  # nats that stand for the drift of a model whose logits are no numbers
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
        self._base = {
            row: part.cpu()
            for rows, log_p in self._log_probabilities()
            for row, part in zip(rows, self._by_row(rows, log_p), strict=True)
        }

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
            for rows, ablated in self._log_probabilities():
                base = torch.cat([self._base[row] for row in rows if self.replies[row]])
                kl = _kl(base.to(ablated.device), ablated).cpu().double()
                for row, part in zip(rows, self._by_row(rows, kl), strict=True):
                    for count, means in found.items():
                        means[row] = float(part[:count].mean())
        counted = [row for row, reply in enumerate(self.replies) if reply]
        return {count: [means[row] for row in counted] for count, means in found.items()}

    def _by_row(self, rows: Sequence[int], values: Tensor) -> Sequence[Tensor]:
        """Values (tokens, ...) of rows together, apart."""
        return torch.split(values, [len(self.replies[row]) for row in rows])

    @torch.no_grad()
    def _log_probabilities(self) -> Iterator[tuple[list[int], Tensor]]:
        """Rows, and (tokens, vocabulary) float32 log p at their replies' tokens, batch by batch."""
        lm = self.lm
        size = _LOGITS // ((self.tokens + 1) * lm.limits.vocabulary)
        size = max(1, min(self.batch_size, size))
        suffixes = [[*lm.skip, *reply] for reply in self.replies]
        for batch in lm.batches(self.prompts, size, suffixes=suffixes):
            lengths = [len(self.replies[row]) for row in batch.rows]
            longest = max(lengths)
            if longest == 0:
                continue
            logits = lm.logits(batch.inputs, longest + 1)[:, :-1]
            counts = torch.tensor(lengths, device=logits.device)
            places = torch.arange(longest, device=logits.device)
            own = logits[places >= longest - counts[:, None]]
            yield batch.rows, log_probabilities(own)


def ranked(kl: float) -> float:
    """A drift that a search can rank: the greatest there is where it is no number, as of a model
    that an edit broke."""
    return kl if math.isfinite(kl) else _BROKEN


def _kl(base: Tensor, ablated: Tensor) -> Tensor:
    """(n,) KL(base || ablated) in nats; both (n, vocabulary) log p. Of two models with one
    tokenizer, whose outputs are padded to different widths, over the tokens that both have."""
    if base.shape[1] != ablated.shape[1]:
        width = min(base.shape[1], ablated.shape[1])
        base, ablated = (log_probabilities(log_p[:, :width]) for log_p in (base, ablated))
    return divergence(base, ablated)
