"""Chosen attempts on the test prompts: replies, every judge's verdicts, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from somatlas.attacks.attack import Attempt
from somatlas.attacks.measuring import replies
from somatlas.audits.bench import Bench
from somatlas.audits.kept_attempts import Kept, Place, Tested
from somatlas.files import append_rows
from somatlas.judges.registry import check_missing
from somatlas.judges.repetition import repetition
from somatlas.judges.verdict import judgements
from somatlas.prompts.prompt_set import Prompt, texts

HARMFUL, ALL_KINDS = ("harmful",), ("harmful", "harmless", "borderline")


def prove(
    bench: Bench, kept: Kept, attempts: Mapping[Place, Attempt], kinds: Sequence[str]
) -> None:
    """Test attempts side by side, and keep what was found.

    kinds : of prompts that they answer; drift is measured on the same harmless replies always.
    """
    sides = {kind: _answers(bench, list(attempts.values()), kind) for kind in kinds}
    for lane, (place, attempt) in enumerate(attempts.items()):
        own = {kind: side[lane] for kind, side in sides.items()}
        if kept.replies is not None:
            append_rows(kept.replies, _reply_rows(bench, place, own))
        kept.tested.put({str(place): _tested(bench, attempt, own)})


def _answers(bench: Bench, attempts: Sequence[Attempt], kind: str) -> list[list[str]]:
    """Replies to harmless prompts are whole, for they are measured; others end when settled."""
    prompts = _prompts(bench, kind)
    if not prompts:
        return [[] for _ in attempts]
    return replies(bench.asking, attempts, texts(prompts), settled=kind != "harmless")


def _tested(bench: Bench, attempt: Attempt, own: Mapping[str, Sequence[str]]) -> Tested:
    verdicts: dict[str, dict[str, list[str]]] = {}
    for judge in bench.judges:
        verdicts[judge.name] = {}
        for kind, said in own.items():
            given = judgements(judge, texts(_prompts(bench, kind)), said)
            check_missing(judge, given, bench.means.max_missing)
            verdicts[judge.name][kind] = [one.verdict.value for one in given]
    ids = [bench.lm.text_ids(reply) for reply in own.get("harmless", ())]
    with attempt.applied(bench.lm):
        kl = bench.on_test.by_reply(None)
    return Tested(verdicts, kl, [float(len(row)) for row in ids], [repetition(r) for r in ids])


def _reply_rows(
    bench: Bench, place: Place, own: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    return [
        {"attempt": str(place), "kind": kind, "prompt": prompt.text, "reply": reply}
        for kind, said in own.items()
        for prompt, reply in zip(_prompts(bench, kind), said, strict=True)
    ]


def _prompts(bench: Bench, kind: str) -> Sequence[Prompt]:
    prompts: Sequence[Prompt] = getattr(bench.means.parts.test, kind)
    return prompts
