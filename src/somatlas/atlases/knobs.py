"""One knob or many: are the cells of a map distinct in what their ablation does?

Outcomes are boolean arrays (c, n): whether the reply to prompt j refuses when the direction of cell
i alone is ablated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.bool_]

_DRAWS = 2000
_BLOCK = 5_000_000  # values that are held at a time


def cochran_q(outcomes: Outcomes, *, seed: int = 0, draws: int = _DRAWS) -> tuple[float, float]:
    """Cochran's Q (1950) of c conditions on the same n prompts, and its p by permutation.

    By chance the conditions are alike to each prompt: its outcomes are dealt to them anew. The
    observed deal counts as one of the draws. Q is 0 and p is 1 where no prompt tells conditions
    apart.
    """
    x = np.asarray(outcomes, dtype=np.int64)
    c, per_prompt = len(x), x.sum(axis=0)
    spread = c * int(per_prompt.sum()) - int((per_prompt**2).sum())
    if spread == 0:
        return 0.0, 1.0
    rng = np.random.default_rng(seed)

    def q(totals: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of totals (..., c) over prompts."""
        squares = (totals**2).sum(axis=-1)
        return np.asarray((c - 1) * (c * squares - totals.sum(axis=-1) ** 2) / spread)

    observed = float(q(x.sum(axis=1)))
    block, found = max(1, _BLOCK // x.size), []
    for start in range(0, draws, block):
        copies = np.broadcast_to(x, (min(block, draws - start), *x.shape))
        found.append(q(rng.permuted(copies, axis=1).sum(axis=2)))
    reached = int((np.concatenate(found) >= observed - 1e-9).sum())
    return observed, (1 + reached) / (1 + draws)


def discordance(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """How far cells (c,) are from one rising curve: the sum over pairs of cells, of which one has
    more of the one count and less of the other, of the product of the two differences."""
    a = np.subtract.outer(one, one)
    b = np.subtract.outer(other, other)
    return int(np.maximum(0, -a * b).sum()) // 2


def one_knob_test(
    harmful: Outcomes, borderline: Outcomes, *, seed: int = 0, draws: int = _DRAWS
) -> dict[str, Any]:
    """Whether cells differ in kind, or as settings of one knob would.

    harmful : (c, n), borderline : (c, m). One knob is a strength a cell and a threshold a prompt
    (the Rasch model). Given how much each cell leaves in all and how many cells each prompt
    resists, every table of outcomes is then as likely as any other, so the observed `discordance`
    of refusals of harmful and of borderline prompts is compared with that of such tables (Rasch's
    exact test; tables by the curveball algorithm, Strona et al. 2014). It counts pairs of cells of
    which one leaves less refusal of harmful prompts and more of borderline ones, so that borderline
    refusals may fall slower or faster than harmful ones on one curve.

    Returns discordance, its mean `expected` by chance, and p, in which the observed table counts as
    one of the draws. Two cells are needed.
    """
    n = harmful.shape[1]
    table = np.concatenate([harmful, borderline], axis=1).astype(bool)
    rng = np.random.default_rng(seed)

    def of_table() -> int:
        return discordance(table[:, :n].sum(axis=1), table[:, n:].sum(axis=1))

    observed = of_table()
    _trade(table, 20 * len(table), rng)
    found = np.empty(draws)
    for draw in range(draws):
        _trade(table, 2 * len(table), rng)
        found[draw] = of_table()
    return {
        "discordance": observed,
        "expected": float(found.mean()),
        "p": (1 + int((found >= observed).sum())) / (1 + draws),
    }


def _trade(table: Outcomes, count: int, rng: np.random.Generator) -> None:
    """Curveball trades, in place: two rows deal anew what only one of them has, as many to each."""
    c = len(table)
    first = rng.integers(c, size=count)
    second = (first + rng.integers(1, c, size=count)) % c
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        places = np.flatnonzero(table[i] != table[j])
        own = np.zeros(len(places), dtype=bool)
        own[: int(table[i, places].sum())] = True
        own = rng.permutation(own)
        table[i, places] = own
        table[j, places] = ~own
