"""How many hours an audit takes: a prediction, calculated from its plan's own counts.

    python benchmarks/audit_hours.py [--plan quick|full|FILE] [--models 1|2] [--relearn]

Counted are the tokens that replies, judging, drift, screens and representations take, and those of
the attacks that learn; every reply is taken to go on to its last token and to be read by the judge,
which refusals are not: where many are left an audit takes half of that. What the proposals of
trials take is left out. For two cores the rates are measured here, on the embedded model; for an
H100 and an 8B model in bfloat16 they are computed from its data sheet, as docs/performance.md does.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from common import MODEL
from somatlas import Projection
from somatlas.ablation import RowProjections
from somatlas.attacks.attack_registry import ATTACKS, make_attack
from somatlas.attacks.families.optimised_directions import REPLY_TOKENS
from somatlas.attacks.gradient import Goal
from somatlas.attacks.target import DRIFT_REPLIES
from somatlas.audits.audit_plan import Plan, load_plan
from somatlas.measures.drift import MORE_REPLY_TOKENS, Drift
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.prompt_set import texts
from somatlas.searches.trials import LANES

JUDGED_TOKENS, JUDGED_BEHIND = 32, 3  # of a reply, behind its own prompt and two others
CHOSEN = 2  # attempts of an attack and budget, over all caps: in the shipped record 1 or 2
HARMLESS_CALIBRATION = 64  # prompts that the judge is calibrated on


@dataclass(frozen=True)
class Work:
    """What a part of an audit computes.

    decoded : tokens of replies, in `steps` forward passes of a token a row. read : tokens of other
    forward passes, `passes` of them. learned : tokens forward and backward, `updates` times.
    """

    decoded: float = 0
    steps: float = 0
    read: float = 0
    passes: float = 0
    learned: float = 0
    updates: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, count: float) -> Work:
        return Work(*(getattr(self, f.name) * count for f in fields(self)))


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt: whole, and behind what all prompts begin with."""

    whole: float
    own: float


def work_of(plan: Plan, layers: int, prompt: Lengths, models: int = 1) -> dict[str, Work]:
    """The parts of an audit of one model, all seeds together.

    layers : of the model. models : 2 where there is another one to take directions of.
    """
    trials = {
        name: plan.trials(name)
        for name in plan.attacks
        if (plan.relearn or not ATTACKS.get(name).needs_consent)
        and (models > 1 or not ATTACKS.get(name).needs_other)
    }
    sides = 2 * plan.train_prompts
    represented = Work(read=sides * prompt.own, passes=math.ceil(sides / 128))
    screen = 2 * plan.screen_prompts
    drift = Work(read=plan.val_harmless * (prompt.own + MORE_REPLY_TOKENS), passes=1)
    fed_back = DRIFT_REPLIES * (prompt.own + MORE_REPLY_TOKENS)
    parts = {
        "the model as it is": _replies(HARMLESS_CALIBRATION + 2 * plan.val_harmless, plan, prompt),
        "representations and screen": represented
        + Work(read=layers * (screen * prompt.own + fed_back), passes=2 * layers),
        "trials": (_replies(plan.val_prompts, plan, prompt) + drift) * sum(trials.values()),
        "the same made again under ablations": represented * trials.get("iterated", 0),
        "descent": _learning(plan, trials, prompt),
        "test": _test(plan, trials, prompt),
    }
    return {name: part * plan.seeds for name, part in parts.items()}


def _replies(count: float, plan: Plan, prompt: Lengths) -> Work:
    """Replies to prompts, and the judge's reading of them."""
    judged = JUDGED_BEHIND * (prompt.own + min(plan.tokens, JUDGED_TOKENS))
    return Work(
        decoded=count * plan.tokens,
        steps=plan.tokens / LANES,
        read=count * (prompt.own + judged),
        passes=1 + JUDGED_BEHIND * math.ceil(count / 16),
    )


def _learning(plan: Plan, trials: Mapping[str, int], prompt: Lengths) -> Work:
    work = Work()
    if "gradient" in trials:
        attack: Any = make_attack("gradient", plan.attack_settings.get("gradient"))
        tokens = attack.rows * (2 * prompt.whole + REPLY_TOKENS)
        work += Work(learned=tokens, updates=2) * (attack.steps * trials["gradient"])
    if "relearning" in trials:
        attack = make_attack("relearning", plan.attack_settings.get("relearning"))
        times = math.ceil(trials["relearning"] / len(attack.steps)) * max(attack.steps)
        work += Work(learned=attack.rows * (prompt.whole + plan.tokens), updates=1) * times
    return work


def _test(plan: Plan, trials: Mapping[str, int], prompt: Lengths) -> Work:
    """The chosen attempts and the model as it is; the frontier's on all kinds of prompts."""
    attempts = 1 + CHOSEN * len(plan.multiples) * len(trials)
    drift = Work(read=min(32, plan.test_harmless) * (prompt.own + MORE_REPLY_TOKENS), passes=1)
    others = plan.test_harmless + plan.test_borderline
    return (_replies(plan.test_harmful, plan, prompt) + drift) * attempts + _replies(
        others, plan, prompt
    ) * (1 + CHOSEN)


@dataclass(frozen=True)
class Core:
    """One core's rates, tokens a second."""

    decoding: float
    reading: float
    learning: float

    def seconds(self, work: Work) -> float:
        return (
            work.decoded / self.decoding + work.read / self.reading + work.learned / self.learning
        )


@dataclass(frozen=True)
class Accelerator:
    """A card by its data sheet. launch : seconds a pass in which operations are launched; bytes :
    of the weights, read once a pass; products : tokens a second of a forward pass."""

    launch: float = 0.012
    weights: float = 16e9 / 3.35e12
    products: float = 0.4 * 989e12 / (2 * 8.03e9)

    def seconds(self, work: Work) -> float:
        each = max(self.launch, self.weights)
        return (
            max(work.steps * each, work.decoded / self.products)
            + max(work.passes * each, work.read / self.products)
            + max(work.updates * 3 * each, 2 * work.learned / self.products)
        )


def measured(lm: LanguageModel, harmful: list[str]) -> tuple[Core, Lengths]:
    """One core's rates on a model, in seconds of the process, and the lengths of its prompts."""
    ids = [lm.token_ids(prompt) for prompt in harmful]
    common = next(i for i, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    whole = sum(map(len, ids)) / len(ids)
    rows = harmful[:24]
    sets = [Projection(torch.randn(3, lm.d_model)) for _ in range(LANES)]

    def decode(tokens: int) -> float:
        ablations = RowProjections(sets)
        with lm.ablate(ablations):
            return _spent(
                lambda: generate(
                    lm, rows, max_new_tokens=tokens, batch_size=128, ablations=ablations
                )
            )

    few, many = decode(4), decode(20)
    drift = Drift(lm, rows, rows, 128, MORE_REPLY_TOKENS)
    read = sum(map(len, drift.replies)) + len(rows) * (whole - common)
    goal = Goal(lm, harmful, [0], harmful, [[0]] * len(harmful))
    Q = torch.linalg.qr(torch.randn(lm.d_model, 1, dtype=torch.float64))[0]
    core = Core(
        16 * len(rows) * LANES / (many - few),
        read / _spent(lambda: drift.under(sets[0])),
        8 * whole / _spent(lambda: goal.refusal(Q, range(8))),
    )
    return core, Lengths(whole, whole - common)


def _spent(work: Callable[[], Any]) -> float:
    """Seconds of the process, on however many threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plan", default="full")
    parser.add_argument("--models", type=int, choices=(1, 2), default=1)
    parser.add_argument("--relearn", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    plan = load_plan(asked.plan, relearn=asked.relearn or None)
    lm = load_model(MODEL)
    core, prompt = measured(lm, texts(bundled_prompts().val.harmful))
    print(
        f"measured on one core, {MODEL}: {core.decoding:.0f} tokens of replies a second, "
        f"{core.reading:.0f} read, {core.learning:.0f} learned"
    )
    print(f"plan {plan.title}, {asked.models} model(s), hours predicted:")
    print(f"{'':40}{'two cores, ' + MODEL:>30}{'H100, 8B':>12}")
    cards: tuple[Core | Accelerator, ...] = (
        Core(2 * core.decoding, 2 * core.reading, 2 * core.learning),
        Accelerator(),
    )
    parts = [work_of(plan, layers, prompt, asked.models) for layers in (lm.n_layers, 32)]
    hours = [
        {name: asked.models * card.seconds(work) / 3600 for name, work in own.items()}
        for card, own in zip(cards, parts, strict=True)
    ]
    for name in hours[0]:
        print(f"{name:40}{hours[0][name]:30.2f}{hours[1][name]:12.2f}")
    print(f"{'together':40}{sum(hours[0].values()):30.2f}{sum(hours[1].values()):12.2f}")


if __name__ == "__main__":
    main()
