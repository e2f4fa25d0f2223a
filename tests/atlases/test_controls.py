"""The controls of the atlas: harmless sides, each direction alone, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import SMALL, Command
from somatlas import DirectionSet, Projection
from somatlas.atlases import cochran_q, contrast_sides
from somatlas.atlases.controls import _knobs
from somatlas.errors import InputError
from somatlas.files import read_json
from somatlas.judges import KeywordJudge
from somatlas.judges.verdict import Judgement, Verdict
from somatlas.models.generation import generate
from somatlas.numerics.geometry import cosine_matrix
from somatlas.prompts import general_prompts
from somatlas.prompts.prompt_set import spread, texts
from somatlas.report.control_prose import contrast_rows, contrast_text, knobs_text
from somatlas.report.floors import floor_text, kmeans_text
from somatlas.representations.extract import residual_stream
from somatlas.representations.store import RepresentationStore
from somatlas.runs import stages
from somatlas.runs.folder import run_at
from somatlas.runs.stages.ablate_stage import kept_drift
from somatlas.runs.stages.atlas_stage import atlas_stage
from somatlas.runs.stages.map_stage import map_stage
from somatlas.runs.stages.search_stage import asking
from somatlas.searches.trials import Asking


def odd(reply: str) -> bool:
    """A behaviour that half of all random replies show."""
    return sum(map(ord, reply)) % 2 == 1


def test_refusals_in_lanes_are_those_of_each_ablation_alone(whole: Path) -> None:
    run = run_at(whole)
    directions = DirectionSet.load(whole / "directions.safetensors")
    trials = replace(asking(run), refusal_judge=KeywordJudge(odd), settled=None, lanes=2)
    prompts = texts(run.prompts.positive["test"])
    projections = [Projection(vector[None]) for vector in directions.vectors[:3]]
    expected = []
    for projection in (None, *projections):
        with run.lm.ablate(projection):
            replies = generate(run.lm, prompts, max_new_tokens=trials.refusal_tokens, batch_size=8)
        expected.append([odd(reply) for reply in replies])
    found = trials.refusals(projections, prompts)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1
    known = {2: [reply for reply, _ in zip(["a", "b"] * 50, prompts, strict=False)]}
    again = trials.refusals(projections, prompts, known)
    np.testing.assert_array_equal(again[[0, 1, 3]], found[[0, 1, 3]])
    np.testing.assert_array_equal(again[2], [odd(reply) for reply in known[2]])
    one = replace(trials, refusal_judge=KeywordJudge(lambda reply: reply.endswith("b")))
    late = {0: ["a " * one.refusal_tokens + "b"] * len(prompts)}
    assert not one.refusals([], prompts, late).any()


class Leaving:
    """Leaves the first reply of its second call without a verdict."""

    name, record = "leaving", {}

    def __init__(self) -> None:
        self.calls = 0

    def judge(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Judgement]:
        self.calls += 1
        found = [Judgement(Verdict.REFUSED) for _ in replies]
        return [Judgement(Verdict.MISSING), *found[1:]] if self.calls == 2 else found


def test_a_reply_without_a_verdict_counts_among_all_that_are_asked_beside_it(whole: Path) -> None:
    run = run_at(whole)
    directions = DirectionSet.load(whole / "directions.safetensors")
    prompts = texts(run.prompts.positive["test"])
    projections = [Projection(vector[None]) for vector in directions.vectors[:3]]
    share = 1 / (3 * len(prompts))
    how = replace(asking(run), refusal_judge=Leaving(), settled=None, lanes=4, max_missing=share)
    found = how.refusals(projections, prompts)
    assert np.argwhere(np.isnan(found)).tolist() == [[1, 0]]
    stricter = replace(how, refusal_judge=Leaving(), max_missing=0.9 * share)
    with pytest.raises(InputError, match="no verdict on 1 of"):
        stricter.refusals(projections, prompts)


def test_replies_that_are_there_are_not_made_again_and_change_nothing(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, asked = read_json(whole / "atlas.json"), []
    whole_reply = Asking.replies

    def counted(self: Asking, prompts: Any, projections: Any = (), *rest: Any) -> list[str]:
        asked.append(len(prompts) * max(1, len(projections)))
        return whole_reply(self, prompts, projections, *rest)

    monkeypatch.setattr(Asking, "replies", counted)
    atlas_stage(run_at(whole))
    few = sum(asked)
    assert read_json(whole / "atlas.json") == own
    asked.clear()
    monkeypatch.setattr(stages.atlas_stage, "_replies", lambda _run: {})
    atlas_stage(run_at(whole))
    assert read_json(whole / "atlas.json") == own
    assert few < 0.85 * sum(asked)


@pytest.mark.parametrize("method", ["points", "som"])
def test_another_draw_changes_the_directions_and_not_sd(method: str, whole: Path) -> None:
    run, found = run_at(whole), []
    for draw in (0, 1, 1):
        run.config = run.config.model_copy(update={"method": method, "draw": draw})
        map_stage(run)
        names = ("directions", "single_direction")
        found.append([DirectionSet.load(whole / f"{name}.safetensors").vectors for name in names])
    (first, sd), (second, same), (again, _) = found
    assert torch.equal(sd, same)
    assert torch.equal(second, again)
    assert first.shape != second.shape or not torch.allclose(first, second, atol=1e-3)


def test_the_atlas_has_each_direction_alone_and_the_sides_with_their_drift(whole: Path) -> None:
    run, atlas = run_at(whole), read_json(whole / "atlas.json")
    directions = DirectionSet.load(whole / "directions.safetensors")
    drift, knobs = kept_drift(run).on(run.lm, 128), atlas["knobs"]
    assert [cell["rank"] for cell in knobs["cells"]] == list(range(len(directions)))
    alone = Projection(directions.vectors[[2]])
    assert knobs["cells"][2]["kl"] == pytest.approx(drift.under(alone), rel=1e-4)
    assert knobs["differ"]["borderline"]["n"] == len(run.prompts.borderline["test"])
    matched, shuffled, general = atlas["contrast"]["sides"]
    layer, store = atlas["layer"], RepresentationStore.open(whole / "representations")
    harmful, harmless = store.at("positive", layer), store.at("negative", layer)
    pairs = {p.pair: i for i, p in enumerate(run.prompts.negative["train"])}
    own = [pairs[p.pair] for p in run.prompts.positive["train"]]
    assert own == list(range(24))  # what the halves are taken from
    sides, _ = contrast_sides(run.prompts.positive["train"], run.prompts.negative["train"], 0)
    everyday = residual_stream(run.lm, spread(general_prompts(), 12), [layer], batch_size=8)[:, 0]
    means = [
        harmful[list(sides[0].harmful)].double().mean(0) - other.double().mean(0)
        for other in (
            harmless[list(sides[0].harmless or ())],
            harmless[list(sides[1].harmless or ())],
            everyday,
        )
    ]
    cosines = cosine_matrix(torch.stack(means).numpy())[0]
    for side, cosine, mean in zip((matched, shuffled, general), cosines, means, strict=True):
        assert side["cosine"] == pytest.approx(cosine, abs=1e-3)
        assert side["kl"] == pytest.approx(drift.under(Projection(mean[None])), rel=1e-3)
        assert (side["n_harmful"], side["n_harmless"]) == (12, 12)


@pytest.mark.figures
def test_prompts_without_pairs_and_a_behaviour_of_ones_own_say_what_is_missing(
    command: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    flags: list[Any] = []
    for side in ("positive", "negative"):
        (tmp_path / f"{side}.txt").write_text("\n".join(f"{side} {i}" for i in range(40)))
        flags += [f"--{side}", tmp_path / f"{side}.txt"]
    place = (*SMALL, *flags, "--out", tmp_path)
    assert command("run", tiny_folder, *place).code == 0
    atlas = read_json(tmp_path / "tiny" / "default" / "atlas.json")
    assert [side["side"] for side in atlas["contrast"]["sides"]] == ["given", "general"]
    assert "no pairs" in contrast_text(atlas["contrast"])
    assert "borderline_refusal" not in atlas["contrast"]["base"]
    assert atlas["knobs"]["one_knob"] is None
    assert "There are no borderline prompts" in knobs_text(atlas["knobs"])
    assert not (tmp_path / "tiny" / "default" / "figures" / "knobs.svg").exists()
    (tmp_path / "own.txt").write_text("e\n")
    own = ("--behaviour", tmp_path / "own.txt", "--name", "own")
    assert command("run", tiny_folder, *place, *own).code == 0
    found = read_json(tmp_path / "tiny" / "own" / "atlas.json")["contrast"]
    assert found["sides"] == contrast_rows(found) == []
    assert "may or may not show the behaviour" in contrast_text(found)


def cells(harmful: list[int], borderline: list[int] | None) -> dict[str, np.ndarray]:
    """Refusals out of 32 under no ablation, SD, and each direction alone."""
    counts = {"harmful": [31, 10, *harmful]}
    if borderline is not None:
        counts["borderline"] = [20, 8, *borderline]
    return {
        kind: (np.arange(32) < np.array(own)[:, None]).astype(float) for kind, own in counts.items()
    }


def test_knobs_are_told_as_many_only_where_the_cells_differ_in_kind() -> None:
    for harmful, borderline, words in (
        ([12, 12, 12, 12], [9, 9, 9, 9], "do not differ in how much"),
        ([2, 12, 20, 30], [1, 9, 14, 20], "The directions differ in how much"),
        ([2, 12, 20, 30], [1, 9, 14, 20], "settings of one knob"),
        ([0, 10, 20, 30] * 4, [30, 20, 10, 0] * 4, "more than one knob"),
        ([2, 12, 20, 30], None, "whether they differ in kind is not tested"),
    ):
        found = _knobs(cells(harmful, borderline), [0.1] * (1 + len(harmful)), 0)
        json.dumps(found)
        assert words in knobs_text(found), words
    assert found["sd"]["refusal"]["rate"] == pytest.approx(10 / 32)
    assert found["cells"][3]["refusal"]["rate"] == pytest.approx(30 / 32)


def test_a_prompt_without_a_verdict_counts_in_no_test_and_no_rate() -> None:
    refused = cells([12, 20], [9, 9])
    refused["harmful"][3, 0] = np.nan
    found = _knobs(refused, [0.1] * 3, 0)
    assert found["differ"]["harmful"]["n"] == 31
    assert found["cells"][1]["refusal"]["n"] == 31
    assert found["cells"][0]["refusal"]["n"] == 32
    outcomes = refused["harmful"][2:, 1:].astype(bool)
    assert found["differ"]["harmful"]["p"] == cochran_q(outcomes)[1]


def contrast(base: float, rates: tuple[float, ...], effect: float, differ: float) -> dict[str, Any]:
    def three(value: float) -> dict[str, Any]:
        one = {"rate": value, "low": value, "high": value, "n": 32}
        return {"refusal": one, "harmless_refusal": one}

    return {
        "sides": [
            {
                "side": name,
                "n_harmful": 192,
                "n_harmless": 192,
                "cosine": 0.5,
                "kl": 0.2,
                **three(r),
            }
            for name, r in zip(("matched", "shuffled", "general"), rates, strict=True)
        ],
        "base": three(base),
        "differ": {"q": 1.0, "p": differ, "n": 32},
        "effect": {"p": effect},
        "missing": [],
    }


def test_what_is_said_of_the_harmless_side_follows_from_the_tests() -> None:
    text = contrast_text(contrast(0.9, (0.2, 0.2, 0.3), 0.001, 0.4))
    assert "matched side does something: it took refusal from 90 % to 20 %" in text
    assert "do not differ" in text
    assert "under 24 points is not resolved" in text
    text = contrast_text(contrast(0.9, (0.8, 0.1, 0.1), 0.3, 0.001))
    assert "matched side shows no effect" in text
    assert "decides what the direction does" in text
    rows = contrast_rows(contrast(0.9, (0.8, 0.1, 0.1), 0.3, 0.001))
    assert [row["title"].split(":")[0] for row in rows] == [
        "model as it is",
        "matched",
        "shuffled",
        "general",
    ]
    assert rows[1]["borderline_refusal"] == "-"
    assert contrast_rows(None) == []


class Row:
    def __init__(self, name: str, method: str, asr: float, refusal: float, kl: float) -> None:
        self.name, self.method = name, method
        self.test = {"asr": {"rate": asr}, "refusal": {"rate": refusal}, "kl": kl}


def test_methods_are_ranked_among_the_draws_of_the_floors() -> None:
    draws = [Row(f"points {i}", "points", 0.7 + i / 20, 0.2, 1.0 + i) for i in range(5)]
    text = floor_text([Row("som", "som", 0.85, 0.1, 0.9), *draws])
    assert "5 draws, ASR 80 % (70 to 90), refusal 20 % (20 to 20), KL 3.00 nats (1.00 to 5.00)" in (
        text
    )
    assert "som: of 5 draws of the floors, ASR is as high in 2, refusal as low in 0" in text
    assert "drift as low in 0" in text
    assert "needs five draws" not in text
    assert "needs five draws" in floor_text(draws[:2])
    assert floor_text([Row("som", "som", 0.85, 0.1, 0.9)]) == ""


def test_kmeans_is_told_against_the_map_whichever_came_first() -> None:
    rows = [Row("som", "som", 0.8, 0.1, 1), Row("km", "kmeans", 0.7, 0.1, 1)]
    test = {"outcome": "asr", "first": "som", "second": "km", "n": 64, "p_holm": 0.2}
    numbers = {"difference": -0.1, "low": -0.2, "high": 0.05}
    there = kmeans_text(rows, [{**test, **numbers}])
    turned = {"difference": 0.1, "low": -0.05, "high": 0.2}
    back = kmeans_text(rows, [{**test, **turned, "first": "km", "second": "som"}])
    assert there == back
    assert "k-means (km) against the map (som), ASR: -10 points [-20, +5], p = 0.200" in there
    assert "said to find the map better" in there
    assert kmeans_text(rows[:1], []) == ""
