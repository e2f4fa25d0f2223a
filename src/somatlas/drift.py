"""What an ablation does to replies that should not change: KL over several tokens.

The unchanged model's own replies to harmless prompts are fed back, and at each of their tokens the
ablated model's distribution of the next one is compared with the unchanged model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from somatlas.interventions import Projection
from somatlas.models.language_model import LanguageModel, log_probabilities

REPLY_TOKENS = 16  # of each reply; the vocabulary's log p of each is kept


class Drift:
    """KL(base || ablated) in nats a token, on the unchanged model's own replies.

    prompts, replies : harmless prompts and what the unchanged model answered; the first
    `REPLY_TOKENS` tokens of each reply count, n_tokens in all. Empty replies count for nothing.
    """

    def __init__(
        self, lm: LanguageModel, prompts: Sequence[str], replies: Sequence[str], batch_size: int
    ) -> None:
        self.lm, self.prompts, self.batch_size = lm, list(prompts), batch_size
        ids = lm.tokenizer(list(replies), add_special_tokens=False)["input_ids"]
        self.replies = [row[:REPLY_TOKENS] for row in ids]
        self.n_tokens = sum(map(len, self.replies))
        self._base = [(rows, log_p.cpu()) for rows, log_p in self._log_probabilities()]

    def under(self, projection: Projection) -> float:
        """The mean over replies of their mean KL under an ablation; 0 where none has a token."""
        values = self.by_reply(projection)
        return sum(values) / max(1, len(values))

    def by_reply(self, projection: Projection) -> list[float]:
        """The mean KL of each reply that has a token, in their order."""
        found: dict[int, float] = {}
        with self.lm.ablate(projection):
            for (rows, base), (_, ablated) in zip(
                self._base, self._log_probabilities(), strict=True
            ):
                p = base.to(ablated.device)
                kl = (p.exp() * (p - ablated)).sum(dim=1).double().cpu()
                parts = torch.split(kl, [len(self.replies[row]) for row in rows])
                found |= {row: float(part.mean()) for row, part in zip(rows, parts, strict=True)}
        return [found[row] for row in sorted(found) if self.replies[row]]

    @torch.no_grad()
    def _log_probabilities(self) -> Iterator[tuple[list[int], Tensor]]:
        """Rows, and (tokens, vocabulary) float32 log p at their replies' tokens, batch by batch."""
        lm = self.lm
        for batch in lm.batches(self.prompts, self.batch_size, suffixes=self.replies):
            lengths = [len(self.replies[row]) for row in batch.rows]
            longest = max(lengths)
            if longest == 0:
                continue
            logits = lm.model(**batch.inputs, logits_to_keep=longest + 1).logits[:, :-1]
            counts = torch.tensor(lengths, device=logits.device)
            places = torch.arange(longest, device=logits.device)
            own = logits[places >= longest - counts[:, None]]
            yield batch.rows, log_probabilities(own)
