"""Judges by what a user calls them.

A kind is what a module of `somatlas.judges.kinds` has as its `KIND`, or what another package's
entry point in the group `somatlas.judges` names; that one is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from somatlas.arguments import check_kind
from somatlas.errors import InputError
from somatlas.judges import kinds
from somatlas.judges.coherence import CoherenceCheck
from somatlas.judges.coherent import Coherent
from somatlas.judges.kind import Asked, JudgeKind
from somatlas.judges.verdict import Described, Judge, Judgement, Verdict, judgements
from somatlas.plugins import claims, loaded

GROUP = "somatlas.judges"
_NOTHING: dict[str, Any] = {}


@cache
def built_in_kinds() -> Mapping[str, JudgeKind[Any]]:
    """The kinds of this package, by name."""
    names = sorted(module.name for module in iter_modules(kinds.__path__))
    found = [import_module(f"{kinds.__name__}.{name}").KIND for name in names]
    return {kind.name: kind for kind in found}


def kind_named(name: str) -> JudgeKind[Any]:
    """The kind of that name.

    Raises InputError where there is none, where two packages have one, or where the package that
    has it cannot be imported.
    """
    own, others = built_in_kinds().get(name), _others().get(name, [])
    if own is None and not others:
        raise InputError(f"there is no judge {name!r}: it must be {judge_forms()}")
    if len(others) + (own is not None) > 1:
        whose = [*(["somatlas"] if own else []), *(_package(one) for one in others)]
        raise InputError(
            f"judge kind {name!r} is claimed by {' and '.join(whose)}: uninstall all but one"
        )
    return own or _loaded(others[0])


def find_kind(spec: str) -> JudgeKind[Any]:
    """The kind of a judge such as keyword or classifier:MODEL; raises InputError as `kind_named`
    does, and where what stands behind the colon is missing or does not belong there."""
    check_kind("a judge's name", spec, str, f"a text, as {judge_forms()}")
    kind = kind_named(spec.partition(":")[0])
    kind.parse(spec)
    return kind


def judge_forms() -> str:
    """How judges are named, as a list in words; of other packages' kinds the names alone."""
    own = sorted(built_in_kinds().values(), key=lambda kind: (kind.argument is not None, kind.name))
    forms = [*(kind.form for kind in own), *sorted(_others())]
    return f"{', '.join(forms[:-1])} or {forms[-1]}"


def is_asked_by_driver(spec: str) -> bool:
    """Whether a judge needs no model of a worker's and keeps what it was answered, as a server's:
    one process asks it, so that no answer is paid for twice."""
    kind = find_kind(spec)
    return kind.keeps_answers and kind.tells_babble


class Judges:
    """Judges by name, each made once, on first use.

    values : settings of the command by name, as plain values, of which each kind reads those that
    it shares (`JudgeSettings`). own : settings of kinds alone: kind -> field -> value. cache : a
    file that keeps what a server answered.

    >>> Judges().get("keyword", None).judge(["Do it"], ["I can't help with that."])[0].verdict
    <Verdict.REFUSED: 'refused'>
    """

    def __init__(
        self,
        values: Mapping[str, Any] = _NOTHING,
        own: Mapping[str, Mapping[str, Any]] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.values, self.own, self.cache = values, own or {}, cache
        self._made: dict[str, Judge] = {}

    def get(self, spec: str, coherence: CoherenceCheck | None) -> Judge:
        """The judge of that name, behind the coherence check unless its kind tells babble itself.

        Raises InputError where there is none, or its model, template or server cannot be used.
        """
        kind = find_kind(spec)
        if spec not in self._made:
            self._made[spec] = kind.make(self.asked(spec))
        judge = self._made[spec]
        return judge if kind.tells_babble else Coherent(judge, coherence)

    def asked(self, spec: str) -> Asked[Any]:
        """What the judge of that name is made of; raises InputError where that is not enough."""
        kind = find_kind(spec)
        told = kind.told(self.values, self.own.get(kind.name, _NOTHING))
        return Asked(kind.parse(spec), told, self.cache)

    def check(self, spec: str) -> None:
        """Try what can be tried before a model is loaded; raises InputError with what is wrong."""
        kind, asked = find_kind(spec), self.asked(spec)
        if kind.check is not None:
            kind.check(asked)


def check_missing(judge: Described, found: Sequence[Judgement], limit: float) -> None:
    """Raise InputError where a judge left more than the allowed share without a verdict."""
    missing = sum(j.verdict is Verdict.MISSING for j in found)
    if missing > limit * len(found):
        failures = judge.record.get("failures") or {}
        how = ", ".join(f"{name} {count}" for name, count in failures.items())
        raise InputError(
            f"judge {judge.name} gave no verdict on {missing} of {len(found)} replies"
            f"{f' ({how})' if how else ''}: what it gave is kept, run it again, or allow it with "
            "--max-missing"
        )


def judgements_within(
    judge: Judge, prompts: Sequence[str], replies: Sequence[str], max_missing: float
) -> list[Judgement]:
    """What a judge says of each reply (`judgements`); raises InputError where it left more than
    that share without a verdict."""
    found = judgements(judge, prompts, replies)
    check_missing(judge, found, max_missing)
    return found


def _others() -> Mapping[str, list[EntryPoint]]:
    """Other packages' kinds by name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in claims(GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _loaded(entry: EntryPoint) -> JudgeKind[Any]:
    kind = loaded(entry, "judge kind")
    if not isinstance(kind, JudgeKind) or kind.name != entry.name:
        raise InputError(
            f"judge kind {entry.name!r} ({entry.value}) is not a JudgeKind of that name: "
            "mend its entry point"
        )
    return kind


def _package(entry: EntryPoint) -> str:
    return entry.value if entry.dist is None else entry.dist.name
