"""Which token comes next: the likeliest, or one drawn.

What is drawn depends on the seed, the prompt and the sample's number alone: neither the batch nor
the order of the prompts changes a reply.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """temperature : above 0. top_p : mass of the likeliest tokens that are drawn from."""

    temperature: float
    top_p: float = 1.0
    seed: int = 0

    def uniforms(self, prompts: Sequence[str], tokens: int) -> Tensor:
        """(prompts, tokens) numbers in [0, 1) that decide the draws of each prompt's reply."""
        rows = [np.random.default_rng(e).random(tokens) for e in _entropies(prompts, self.seed)]
        return torch.from_numpy(np.array(rows).reshape(len(prompts), tokens))

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Token ids (rows,) for logits (rows, vocabulary) and one number a row."""
        p, ids = (logits.double() / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        below = p.cumsum(dim=-1) - p  # mass of the likelier tokens
        p = torch.where(below < self.top_p, p, 0.0)
        steps = p.cumsum(dim=-1)
        aim = uniforms.to(steps.device)[:, None] * steps[:, -1:]
        place = torch.searchsorted(steps, aim, right=True).clamp(max=steps.shape[-1] - 1)
        return ids.gather(-1, place)[:, 0]


def server_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """A seed for each prompt's reply, for a server that draws by itself: from 0 to 2^31 - 1."""
    states = [np.random.SeedSequence(e).generate_state(1)[0] for e in _entropies(prompts, seed)]
    return [int(state) >> 1 for state in states]  # a sign bit is more than some servers take


def _entropies(prompts: Sequence[str], seed: int) -> list[list[int]]:
    """The seed, the sample's number and the prompt, as numbers, for each prompt's reply."""
    seen: Counter[str] = Counter()
    rows = []
    for prompt in prompts:
        words = np.frombuffer(hashlib.sha256(prompt.encode()).digest(), dtype=np.uint32)
        rows.append([seed, seen[prompt], *words.tolist()])
        seen[prompt] += 1
    return rows
