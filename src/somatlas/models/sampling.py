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

from somatlas.numerics.real_values import in_float64


@dataclass(frozen=True)
class Sampling:
    """temperature : above 0. top_p : mass of the likeliest tokens that are drawn from."""

    temperature: float
    top_p: float = 1.0
    seed: int = 0

    def uniforms(
        self, prompts: Sequence[str], tokens: int, samples: Sequence[int] | None = None
    ) -> Tensor:
        """(prompts, tokens) numbers in [0, 1) that decide the draws of each prompt's reply.

        samples : which of its prompt's replies each is; counted here if not given.
        """
        numbers = sample_numbers(prompts) if samples is None else samples
        entropies = _entropies(prompts, numbers, self.seed)
        rows = [np.random.default_rng(e).random(tokens) for e in entropies]
        return torch.from_numpy(np.array(rows).reshape(len(prompts), tokens))

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Token ids (rows,) for logits (rows, vocabulary) and one number a row."""
        scaled = in_float64(logits) / self.temperature
        p, ids = scaled.softmax(dim=-1).sort(dim=-1, descending=True)
        below = p.cumsum(dim=-1) - p  # mass of the likelier tokens
        p = torch.where(below < self.top_p, p, 0.0)
        steps = p.cumsum(dim=-1)
        aim = uniforms.to(steps.device)[:, None] * steps[:, -1:]
        place = torch.searchsorted(steps, aim, right=True).clamp(max=steps.shape[-1] - 1)
        return ids.gather(-1, place)[:, 0].to(logits.device)


def server_seeds(prompts: Sequence[str], seed: int) -> list[int]:
    """A seed for each prompt's reply, for a server that draws by itself: from 0 to 2^31 - 1."""
    entropies = _entropies(prompts, sample_numbers(prompts), seed)
    states = [np.random.SeedSequence(entropy).generate_state(1)[0] for entropy in entropies]
    return [int(state) >> 1 for state in states]  # a sign bit is more than some servers take


def sample_numbers(prompts: Sequence[str]) -> list[int]:
    """How often each prompt stands before itself.

    >>> sample_numbers(["a", "b", "a"])
    [0, 0, 1]
    """
    seen: Counter[str] = Counter()
    numbers = []
    for prompt in prompts:
        numbers.append(seen[prompt])
        seen[prompt] += 1
    return numbers


def _entropies(prompts: Sequence[str], samples: Sequence[int], seed: int) -> list[list[int]]:
    """The seed, the sample's number and the prompt, as numbers, for each prompt's reply."""
    rows = []
    for prompt, sample in zip(prompts, samples, strict=True):
        words = np.frombuffer(hashlib.sha256(prompt.encode()).digest(), dtype=np.uint32)
        rows.append([seed, sample, *words.tolist()])
    return rows
