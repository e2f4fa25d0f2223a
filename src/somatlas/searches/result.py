"""What a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

from pydantic import PrivateAttr

from somatlas.ablation import Projection
from somatlas.errors import InputError
from somatlas.records import Form, Record, like
from somatlas.searches.loop import Outcome, pareto_front, within
from somatlas.searches.space import Ranks


class _Shares(Form):
    asr: float
    refusal: float
    incoherent: float
    kl: float | None
    pruned: bool


class _Trial(_Shares):
    ranks: list[int]


class _Val(_Shares):
    n: int


class _Contender(Form):
    ranks: list[int]
    val_asr: float
    selection_asr: float


class _Selection(Form):
    asr: float
    optimism: float
    n: int
    contenders: list[_Contender]


class _OnFront(Form):
    ranks: list[int]
    asr: float
    kl: float


class SearchResult(Record):
    """search.json: the winner, how it was chosen, and every trial.

    ranks : of the winner. val : what it measured on the val prompts, `n` of them. selection : ASR
    of the contenders on val prompts that no trial answered, and what val promised too much
    (`optimism`); None where there were too few. front : trials that no other beats in both ASR and
    KL, where KL was measured. max_kl : the limit, and how many trials kept it. storage : where the
    study is, without its password. coherence : the check of answers. trials : ranks and outcome of
    each, in their order.
    """

    file: ClassVar[str] = "search.json"

    ranks: list[int]
    val: Annotated[dict[str, Any], like(_Val)]
    selection: Annotated[dict[str, Any] | None, like(_Selection | None)]
    front: Annotated[list[dict[str, Any]] | None, like(list[_OnFront] | None)]
    max_kl: dict[str, Any] | None
    storage: str
    coherence: dict[str, Any] | None
    trials: Annotated[list[dict[str, Any]], like(list[_Trial])]

    _projection: Projection | None = PrivateAttr(None)

    @property
    def projection(self) -> Projection:
        """The winner's ablation, of the directions that were searched.

        Raises InputError for a result that was read from a file, which holds no directions: take
        `Projection(directions.vectors[result.ranks])`.
        """
        if self._projection is None:
            raise InputError(
                "a search that was read from a file has ranks and no directions: ablate "
                "Projection(directions.vectors[result.ranks])"
            )
        return self._projection


def front_rows(rows: Sequence[tuple[Ranks, Outcome]]) -> list[dict[str, Any]] | None:
    """The Pareto front as it is recorded; None where no trial measured KL."""
    front = pareto_front(rows)
    return [{"ranks": list(r), "asr": o.asr, "kl": o.kl} for r, o in front] or None


def trial_rows(rows: Sequence[tuple[Ranks, Outcome]]) -> list[dict[str, Any]]:
    """The trials as they are recorded."""
    return [{"ranks": list(ranks), **asdict(outcome)} for ranks, outcome in rows]


def limit_row(rows: Sequence[tuple[Ranks, Outcome]], limit: float | None) -> dict[str, Any] | None:
    """The limit of KL and how many trials kept it; None for no limit."""
    return None if limit is None else {"limit": limit, "kept": len(within(rows, limit))}
