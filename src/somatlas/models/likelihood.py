"""How unlikely the model finds each token of a reply. What a prompt costs is paid once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache

from somatlas.fleet import deal
from somatlas.models.batches import Batch, cache_argument
from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import log_probabilities, surprise

_KEPT_BYTES = 2**28  # of prompts' keys and values at most


class _Prompts(NamedTuple):
    """Prompts of one batch, and what scoring behind them needs: log_p of the first reply token."""

    cache: Cache
    mask: Tensor
    log_p: Tensor


class Surprise:
    """-log p of each token, in nats, of replies after prompts, and after reasoning that is skipped
    where the model reasons.

    The prompts' keys and values are kept for replies to come, up to 256 MiB.
    """

    def __init__(self, lm: LanguageModel, batch_size: int) -> None:
        self.lm, self.batch_size = lm, batch_size
        self._known: dict[str, tuple[_Prompts, int]] = {}
        self._kept = 0

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str], replies: Sequence[Sequence[int]], room: int
    ) -> list[list[float]]:
        """One list a pair, a value a token. replies : token ids, at most room each."""
        result: list[list[float]] = [[] for _ in prompts]
        todo = [i for i, reply in enumerate(replies) if reply]
        new = list(dict.fromkeys(prompts[i] for i in todo if prompts[i] not in self._known))
        behind = [self.lm.skip] * len(new)
        for batch in self.lm.batches(new, self.batch_size, suffixes=behind, room=room):
            own = {new[row]: place for place, row in enumerate(batch.rows)}
            pairs = [(i, own[prompts[i]]) for i in todo if prompts[i] in own]
            if batch.cache is None:
                losses = self._whole([prompts[i] for i, _ in pairs], [replies[i] for i, _ in pairs])
                for (i, _), loss in zip(pairs, losses, strict=True):
                    result[i] = loss
                continue
            part = self._prepared(batch, batch.cache)
            if not self._keep(part, list(own)):
                self._score(part, pairs, replies, result)
        groups: dict[int, tuple[_Prompts, list[tuple[int, int]]]] = {}
        for i in todo:
            if prompts[i] in self._known:
                part, row = self._known[prompts[i]]
                groups.setdefault(id(part), (part, []))[1].append((i, row))
        for part, pairs in groups.values():
            self._score(part, pairs, replies, result)
        return result

    def _score(
        self,
        part: _Prompts,
        pairs: Sequence[tuple[int, int]],
        replies: Sequence[Sequence[int]],
        result: list[list[float]],
    ) -> None:
        """Fill in the results of some pairs: their places, and their prompts' rows in the part.

        Those of about one length together, for padding costs as much as tokens do.
        """
        for some in deal(sorted(pairs, key=lambda pair: len(replies[pair[0]])), self.batch_size):
            losses = self._after(part, [row for _, row in some], [replies[i] for i, _ in some])
            for (i, _), loss in zip(some, losses, strict=True):
                result[i] = loss

    def _prepared(self, batch: Batch, cache: Cache) -> _Prompts:
        logits = self.lm.logits(batch.inputs, 1)[:, -1]
        return _Prompts(cache, batch.attention_mask, log_probabilities(logits))

    def _keep(self, part: _Prompts, prompts: Sequence[str]) -> bool:
        """Keep them for replies to come, where there is room."""
        kept = [t for layer in part.cache.layers for t in (layer.keys, layer.values)]
        size = sum(t.numel() * t.element_size() for t in kept)
        if self._kept + size > _KEPT_BYTES:
            return False
        self._kept += size
        self._known |= {prompt: (part, row) for row, prompt in enumerate(prompts)}
        return True

    def _whole(self, prompts: Sequence[str], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """Prompts and replies in one pass, for models that keep nothing that can be shared."""
        result: list[list[float]] = [[] for _ in prompts]
        suffixes = [[*self.lm.skip, *reply] for reply in replies]
        for batch in self.lm.batches(prompts, self.batch_size, suffixes=suffixes):
            longest = max(len(replies[row]) for row in batch.rows)
            logits = self.lm.logits(batch.inputs, longest + 1)[:, :-1]
            losses = surprise(logits, batch.input_ids[:, -longest:])
            for row, loss in zip(batch.rows, losses, strict=True):
                result[row] = loss[-len(replies[row]) :].tolist()
        return result

    def _after(
        self, part: _Prompts, rows: Sequence[int], replies: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Replies behind prompts whose keys and values are known, padded on the right."""
        lm, longest = self.lm, max(map(len, replies))
        where = torch.tensor(list(rows), device=part.mask.device)
        ids = torch.tensor(
            [[*reply, *[lm.pad_token_id] * (longest - len(reply))] for reply in replies],
            device=where.device,
        )
        losses = -part.log_p[where].gather(1, ids[:, :1])
        if longest > 1:
            mask = part.mask[where]
            steps = torch.arange(longest - 1, device=where.device)
            batch = Batch(
                list(rows),
                ids[:, :-1],
                torch.cat([mask, mask.new_ones(len(ids), longest - 1)], dim=1),
                part.cache,
                rows,
                cache_argument(lm.model),
            )
            inputs = batch.inputs | {"position_ids": mask.sum(dim=1, keepdim=True) + steps}
            rest = surprise(lm.model(**inputs).logits, ids[:, 1:])
            losses = torch.cat([losses, rest], dim=1)
        return [loss[: len(reply)].tolist() for loss, reply in zip(losses, replies, strict=True)]
