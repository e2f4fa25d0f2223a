"""What is known of an audit before a model is loaded: plan, prompts, parts, folder, all tried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from somatlas.attacks.attack_registry import ATTACKS, make_attack
from somatlas.audits.audit_plan import Plan, load_plan
from somatlas.audits.kept_attempts import Kept
from somatlas.audits.parts import Parts, parts_of
from somatlas.errors import InputError, Problems
from somatlas.files import read_text
from somatlas.judges.registry import Judges
from somatlas.prompts.prompt_set import PromptSet
from somatlas.runs.folder_kind import check_folder

_JUDGING = ("behaviour", "judge_template", "judge_labels")  # settings that decide verdicts


@dataclass(frozen=True)
class Prepared:
    """An audit that can begin. names : of the models, by role."""

    plan: Plan
    prompts: PromptSet
    parts: Parts
    judges: Judges
    folder: Path
    names: Mapping[str, str]

    def fix(self) -> None:
        """Write the plan, the first thing an audit leaves.

        Raises InputError where the folder holds another audit: of another plan, or of other models.
        """
        kept = Plan.read_if_there(self.folder)
        if kept is None:
            if len(Kept(self.folder).attempts):
                raise InputError(
                    f"{self.folder} holds attempts and no plan.json that they were made under: "
                    "give another --name, or remove that folder"
                )
            self.plan.write(self.folder)
            return
        if kept.sha256 != self.plan.sha256:
            was, now = kept.plain(), self.plan.plain()
            name = next(name for name in now if was.get(name) != now[name])
            raise InputError(
                f"{self.folder} holds an audit with {name} = {was.get(name)!r}, not {now[name]!r}: "
                "a plan is not changed once it is begun, so give another --name"
            )
        for role, row in Kept(self.folder).models.all().items():
            if row.name != self.names.get(role):
                raise InputError(
                    f"{self.folder} holds an audit with {row.name} as {role}, not "
                    f"{self.names.get(role, 'none')}: give another --name"
                )


def prepare(
    prompts: PromptSet,
    folder: Path,
    names: Mapping[str, str],
    plan: str | Path = "quick",
    judges: Judges | None = None,
    **changes: Any,
) -> Prepared:
    """Read the plan, part the prompts, try attacks and judges by name.

    names : of the models by role, "model" and, where there are two, "against". changes : fields of
    `Plan` in place of the plan's own, None for none. Raises one InputError with all that is wrong;
    writes nothing.
    """
    check_folder(folder, "audit")
    judges = judges or Judges()
    found = load_plan(plan, judging=_judging(judges), **changes)
    problems = Problems()
    for name in found.attacks:
        with problems.gathered():
            make_attack(name, found.attack_settings.get(name))
    if not problems.found and "against" not in names and not found.named:
        for name in taking_of_other(found):
            problems.add(
                [f"attack {name!r} of the plan takes something of a second model: give --against"]
            )
    if not problems.found and found.relearn and not _training(found):
        problems.add(
            [
                f"plan {found.title} has no attack that trains the model, so there is nothing to "
                "relearn: take --plan full, or a plan of your own with one"
            ]
        )
    for spec in (found.judge, *found.more_judges):
        with problems.gathered():
            judges.check(spec)
    with problems.gathered():
        parts = parts_of(prompts, found, found.seed)
    problems.raise_found()
    whole = found.model_copy(update={"prompts": parts.digests()})
    return Prepared(whole, prompts, parts, judges, folder, names)


def taking_of_other(plan: Plan) -> Sequence[str]:
    """The plan's attacks that take something of a second model."""
    return [name for name in plan.attacks if ATTACKS.get(name).needs_other]


def _training(plan: Plan) -> Sequence[str]:
    return [name for name in plan.attacks if ATTACKS.get(name).needs_consent]


def check_alike(
    names: Mapping[str, str],
    widths: Mapping[str, int | None],
    vocabularies: Mapping[str, Mapping[str, int]],
    plan: Plan,
) -> None:
    """Raise InputError where the plan's attacks take something of the second model that means
    nothing in the first: their vectors or their tokens are not the same.

    widths : d_model by role, None where it is not known. vocabularies : token -> id by role.
    """
    if "against" not in names or not (taking := taking_of_other(plan)):
        return
    advice = f"take a plan of your own without {' and '.join(taking)}"
    one, two = names["model"], names["against"]
    if None not in widths.values() and widths["model"] != widths["against"]:
        raise InputError(
            f"{two} has d_model {widths['against']} and {one} {widths['model']}, so that "
            f"directions of one mean nothing in the other: {advice}"
        )
    if vocabularies["model"] != vocabularies["against"]:
        raise InputError(f"{two} has another vocabulary than {one}: {advice}")


def check_widths(names: Mapping[str, str], widths: Mapping[str, int | None], plan: Plan) -> None:
    """Raise InputError where an attack of the plan would make more directions than a model's
    vectors have dimensions. widths : d_model by role, None where it is not known."""
    for role in names:
        if (d_model := widths[role]) is not None:
            for name in plan.attacks:
                make_attack(name, plan.attack_settings.get(name)).check_width(d_model)


def _judging(judges: Judges) -> dict[str, Any]:
    """What judges are told that decides their verdicts, files by the sha256 of their text."""
    values = {name: judges.values.get(name) for name in _JUDGING}
    told: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name, value in told.items():
        if isinstance(value, str):
            text = read_text(Path(value), name)
            told[name] = f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
    own = {kind: dict(given) for kind, given in judges.own.items() if given}
    return {**told, **({"judge_settings": own} if own else {})}
