"""Low-rank adapters that are learned on replies and in force as hooks: nothing is merged, and
removing them restores the model exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from somatlas.attacks.descent import descents
from somatlas.attacks.prompt_order import drawn
from somatlas.errors import InputError
from somatlas.models.batches import Batch
from somatlas.models.language_model import LanguageModel
from somatlas.numerics.probabilities import log_probabilities

RANK = 8
SCALE = 2.0  # alpha / rank
WARM_UP = 5  # steps
_LONGEST = 1.0  # what a step's gradient is clipped to


@dataclass(frozen=True)
class Lesson:
    """A prompt, and the token ids of the reply to be learned, one at least."""

    prompt: str
    reply: Sequence[int]


@contextmanager
def adapted(lm: LanguageModel, factors: Mapping[str, Tensor]) -> Iterator[None]:
    """While active every adapted linear layer puts out y + SCALE B A x.

    factors : "NAME.A" (rank, in) and "NAME.B" (out, rank) for each layer by its name in the model.
    """
    modules = dict(lm.model.named_modules())
    handles = []
    for key, A in factors.items():
        name, _, which = key.rpartition(".")
        if which == "A":
            hook = _adding(A, factors[f"{name}.B"])
            handles.append(modules[name].register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(A: Tensor, B: Tensor) -> Callable[..., Tensor | None]:
    def add(_module: nn.Module, args: Any, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            return None  # a router that is a linear layer by its class alone
        x = args[0].to(A.dtype)
        a, b = A.to(x.device), B.to(x.device)
        change: Tensor = SCALE * (x @ a.T) @ b.T
        moved: Tensor = output + change.to(output.dtype)
        return moved

    return add


def learned(
    lm: LanguageModel,
    lessons: Sequence[Lesson],
    marks: Sequence[int],
    *,
    rate: float,
    seed: str,
    rank: int = RANK,
    rows: int = 8,
) -> dict[int, dict[str, Tensor]]:
    """Factors for `adapted` after each of `marks` steps of AdamW on the lessons' replies.

    Every linear layer of the decoder's blocks is adapted (experts whose weights are stacked are
    none); the model's own parameters stay frozen. The loss is the mean over lessons of the mean
    -log p over a reply's tokens, `rows` lessons a step. rate : of learning, flat behind a warm-up.

    Raises InputError where the blocks have no linear layer, or the loss is not finite.
    """
    factors = _fresh(lm, rank, seed)
    parameters = list(factors.values())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    batches = drawn(range(len(lessons)), rows, random.Random(seed))
    kept: dict[int, dict[str, Tensor]] = {}
    for step in range(1, max(marks) + 1):
        chosen = [lessons[place] for place in next(batches)]
        loss, gradients = _descent(lm, factors, chosen, rows)
        if not math.isfinite(loss):
            raise InputError(
                f"relearning on {lm.name} in {lm.model.dtype} gives no finite loss at step {step}: "
                "try another --dtype, or a lower rate"
            )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient / len(chosen)
        torch.nn.utils.clip_grad_norm_(parameters, _LONGEST)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / WARM_UP)
        optimizer.step()
        if step in marks:
            kept[step] = {name: f.detach().cpu().clone() for name, f in factors.items()}
    return kept


def _fresh(lm: LanguageModel, rank: int, seed: str) -> dict[str, Tensor]:
    """A at random, B zero, so that nothing is changed yet; float32."""
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    inside = {id(module) for block in lm.structure.blocks for module in block.modules()}
    factors: dict[str, Tensor] = {}
    for name, module in lm.model.named_modules():
        if id(module) not in inside or not isinstance(module, nn.Linear | Conv1D):
            continue
        n_in, n_out = (
            (module.nx, module.nf)
            if isinstance(module, Conv1D)
            else (module.in_features, module.out_features)
        )
        device = module.weight.device
        A = torch.randn(rank, n_in, generator=generator) / math.sqrt(n_in)
        factors[f"{name}.A"] = A.to(device).requires_grad_()
        factors[f"{name}.B"] = torch.zeros(n_out, rank, device=device).requires_grad_()
    if not factors:
        raise InputError(f"the blocks of {lm.name} have no linear layer that could be adapted")
    return factors


def _descent(
    lm: LanguageModel, factors: Mapping[str, Tensor], lessons: Sequence[Lesson], rows: int
) -> tuple[float, list[Tensor]]:
    """The loss summed over lessons, with its gradient by each factor."""
    replies = [lesson.reply for lesson in lessons]
    parts = descents(
        lm,
        [lesson.prompt for lesson in lessons],
        replies,
        rows,
        list(factors.values()),
        lambda: adapted(lm, factors),
        lambda whole, batch: _loss(whole, batch, [len(replies[row]) for row in batch.rows]),
        allow_unused=True,
    )
    gradients = [sum(own[1:], own[0]) for own in zip(*(g for _, g in parts), strict=True)]
    return sum(loss for loss, _ in parts), gradients


def _loss(lm: LanguageModel, batch: Batch, lengths: Sequence[int]) -> Tensor:
    """The sum over rows of the mean -log p of their replies' tokens."""
    longest = max(lengths)
    log_p = log_probabilities(lm.logits(batch.inputs, longest + 1)[:, :-1])
    losses = -log_p.gather(-1, batch.input_ids[:, -longest:, None].to(log_p.device))[..., 0]
    return torch.stack(
        [own[-length:].mean() for own, length in zip(losses, lengths, strict=True)]
    ).sum()
