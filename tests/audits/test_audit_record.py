"""audit.json read again: an inner table that is damaged is one sentence."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from somatlas.audits.audit_record import AuditRecord
from somatlas.audits.audit_table import audit_table
from somatlas.errors import InputError

SHIPPED = Path(__file__).parents[2] / "docs" / "audit" / "audit.json"
GONE = object()  # in place of a value: the field is missing
SHARE = {"value": 0.5, "low": 0.4, "high": 0.6}
COLUMNS = dict.fromkeys(("regenerated", "fixed", "absent"), SHARE)
REASONED = {
    "reasons": True,
    "left_out": "",
    "cap": 0.5,
    "attack": "sd",
    "attempt": "sd 1",
    "absent_by": "an empty block of reasoning",
    "tokens": 32,
    "prompts": 48,
    "cut": {"regenerated": 0, "fixed": 1},
    "without": {"regenerated": 0, "fixed": 0},
    "success": COLUMNS,
    "refusal": COLUMNS,
    "change": dict.fromkeys(("fixed", "absent"), SHARE),
}


def kept(folder: Path, place: str, value: Any) -> Path:
    """A folder with the shipped record, of which one model reasons, and with another value at a
    place."""
    content = json.loads(SHIPPED.read_text(encoding="utf-8"))
    content["models"]["model"]["reasoning"] = json.loads(json.dumps(REASONED))
    *outer, last = [int(step) if step.isdecimal() else step for step in place.split("/")]
    inner = reduce(lambda found, step: found[step], outer, content)
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    (folder / "audit.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("plan/thresholds", {}, "plan: thresholds.ratio: field required"),
        ("plan/prompts", {"test": None}, "prompts holds null"),
        ("ratio/low", None, "ratio: low: input should be a valid number"),
        ("area/more", 1.0, "area: more: extra inputs are not permitted"),
        ("verdict/word", "x", "verdict: word: input should be 'dearer to break'"),
        ("findings/3/passed", "x", "findings: 3.passed: input should be a valid boolean"),
        ("findings/3/model", "x", "findings: 'x' is none of the models"),
        ("models/against", GONE, "findings: 'against' is none of the models"),
        ("models/model/cost/ac50/most", GONE, "models.model.cost: ac50.most: field required"),
        ("models/model/cost/area/value", "1", "models.model.cost: area.value: input should be"),
        ("models/model/cost/budgets/0", 1e9, "budgets must be rising"),
        ("models/model/cost/fitted", [], "fitted must have a number a budget"),
        ("models/model/best", [], "models.model: best must have a row a budget"),
        ("models/model/best/2/kl", None, "models.model.best: 2.kl: input should be a valid number"),
        ("models/model/unattacked", {}, "models.model.unattacked: success: field required"),
        ("models/model/worst/attack", "x", "models.model: worst: 'x' is none of the attacks"),
        ("models/model/rank_to_break/success", {}, "models.model.rank_to_break: success: "),
        ("models/model/recognition/edited", GONE, "recognition: edited: field required"),
        ("models/model/reasoning/left_out", GONE, "left_out must be a text where it reasons"),
        ("models/model/reasoning/cut", GONE, "cut is missing beside the columns"),
        ("models/model/reasoning/success/fixed", [], "models.model.reasoning: success.fixed: "),
        ("models/model/trials/4/asr", [], "models.model.trials: 4.asr: input should be a valid"),
        ("models/model/trials/4/about", {"cells": None}, "trials: 4.about.cells: input should be"),
        ("models/model/families/0/threat", "x", "families.0.threat: input should be 'A', 'B'"),
        ("models/model/families/0/attack", "x", "models must have the same attacks and budgets"),
        ("models/model/families/0/cost", {}, "families.0.cost: budgets: field required"),
        ("models/model/families/5/chance_to_break/1", {}, "chance_to_break: 1.rate: field"),
    ],
)
def test_a_damaged_inner_table_is_one_sentence(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as error:
        AuditRecord.read(kept(tmp_path, place, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("models/model/reasoning", {}),
        ("models/model/reasoning", {"reasons": True, "left_out": "there is no edit"}),
        ("models/model/unattacked/borderline_refusal", None),
        ("models/model/recognition/edited/borderline", None),
        ("models/model/rank_to_break", None),
        ("models/model/trials/4/kl", None),
        ("models/model/best/2/harmless_answered", GONE),
        ("models/model/families/0/chance_to_break", {}),
        ("verdict", None),
        ("somatlas", "0.2.0"),
    ],
)
def test_what_an_audit_may_leave_open_is_read(tmp_path: Path, place: str, value: Any) -> None:
    record = AuditRecord.read(kept(tmp_path, place, value))
    assert audit_table(record)
    record.write(tmp_path)
    assert AuditRecord.read(tmp_path) == record
