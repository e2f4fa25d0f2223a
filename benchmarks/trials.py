"""A search trial, a search and the choice of a layer, against the paper's protocol.

    python benchmarks/trials.py RUN

RUN is the folder of a run whose map stage is done (`somatlas run` makes one). The paper's protocol
is measured on a few trials and layers and multiplied: each costs the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import mean

from baseline import Baseline
from common import Row, timed, write
from searching import PROMPTS, TOKENS, on_a_run, search_rows, trials_of
from somatlas import Projection
from somatlas.files import read_json
from somatlas.judges import Verdict
from somatlas.measures.layer_choice import RuleData, measured, opening_of, score_layers
from somatlas.measures.layer_rule import (
    LayerScore,
    candidate_layers,
    mean_kl,
    refusal_scores,
)
from somatlas.models.language_model import LanguageModel
from somatlas.prompts import bundled_prompts
from somatlas.prompts.prompt_set import Prompt, spread, texts
from somatlas.representations.store import RepresentationStore

TRIALS, PAPER_LAYERS, LAYER_PROMPTS = 32, 3, 32


def measure(folder: Path, saved: Path) -> None:
    """folder : of the run. saved : the model's checkpoint, for the baselines."""
    trials, space, points = trials_of(folder)
    vectors, harmful = trials.vectors, trials.harmful
    judge = trials.asking.judge

    def judged(replies: list[str]) -> float:
        verdicts = [j.verdict for j in judge.judge(harmful, replies)]
        return verdicts.count(Verdict.COMPLIED) / len(verdicts)

    def paper_trial(ranks: tuple[int, ...]) -> float:
        anew = Baseline.load(saved)
        anew.edit(Projection(vectors[list(ranks)]))
        return judged(anew.replies(harmful, TOKENS, 16))

    def resident_trial(ranks: tuple[int, ...]) -> float:
        undo = resident.edit(Projection(vectors[list(ranks)]))
        replies = resident.replies(harmful, TOKENS, PROMPTS)
        undo()
        return judged(replies)

    def our_trial(ranks: tuple[int, ...]) -> float:
        return trials([ranks], 0.0)[0].asr

    resident = Baseline.load(saved)
    trials(points[:1], 0.0)  # warm
    resident_trial(points[0])
    paper, plain, ours = [], [], []
    for ranks in points:
        paper.append(timed(partial(paper_trial, ranks)))
        plain.append(timed(partial(resident_trial, ranks)))
        ours.append(timed(partial(our_trial, ranks)))
        print([round(x[-1][0], 1) for x in (paper, plain, ours)], flush=True)
        gaps = [abs(x[-1][1] - ours[-1][1]) for x in (paper, plain)]
        assert max(gaps) < 1.5 / PROMPTS, gaps  # float rounding may turn one reply
    seconds = {n: mean(s for s, _ in x) for n, x in zip("pro", (paper, plain, ours), strict=True)}

    rows = [
        Row(
            f"one search trial, keyword judge, {PROMPTS} prompts, {TOKENS} tokens",
            "paper protocol",
            f"{seconds['o']:.1f} s",
            f"{seconds['p']:.1f} s",
            seconds["p"] / seconds["o"],
            2.5,
        ),
        Row(
            "the same",
            "resident model, weight edit, plain generate",
            f"{seconds['o']:.1f} s",
            f"{seconds['r']:.1f} s",
            seconds["r"] / seconds["o"],
            1.7,
        ),
    ]
    write("trials", rows)  # as it goes: the whole takes a quarter of an hour
    rows += search_rows(trials, space, TRIALS, seconds["p"], targets=(2.5, 8))
    write("trials", rows)
    val = bundled_prompts().val
    sides = spread(val.harmful, LAYER_PROMPTS), spread(val.harmless, LAYER_PROMPTS)
    rows.append(_layers(folder, saved, sides, trials.asking.lm))
    write("trials", rows)


def _layers(
    folder: Path, saved: Path, sides: tuple[list[Prompt], list[Prompt]], lm: LanguageModel
) -> Row:
    tokens = read_json(folder / "layers.json")["refusal_tokens"]["ids"]
    store = RepresentationStore.open(folder / "representations")
    single = (store.means("positive") - store.means("negative")).float()
    layers = list(candidate_layers(lm.n_layers))
    harmful, harmless = map(texts, sides)

    def ours() -> dict[int, LayerScore]:
        data = RuleData(dict(zip(store.layers, single, strict=True)), sides, sides, {})
        opening = opening_of(lm, data, tokens, 0.0, 128)
        found = score_layers(data, layers, opening, partial(measured, lm, 128))
        return {score.layer: score for score in found.scores}

    def paper(layer: int) -> float:
        """The model anew, its weights edited, one prompt at a time."""
        anew = Baseline.load(saved)
        anew.edit(Projection(single[layer][None]))
        log_p = anew.log_probabilities(harmful)
        mean_kl(base, anew.log_probabilities(harmless))
        return float(refusal_scores(log_p, tokens).mean())

    fast, scores = timed(ours)
    base = Baseline.load(saved).log_probabilities(harmless)
    picked = layers[:: len(layers) // PAPER_LAYERS][:PAPER_LAYERS]
    slow = []
    for layer in picked:
        one, score = timed(partial(paper, layer))
        assert scores[layer].n is not None or abs(score - scores[layer].refusal_score) < 0.01
        slow.append(one)
    baseline = len(layers) * mean(slow)
    return Row(
        f"layer selection, {len(layers)} layers",
        f"paper protocol ({PAPER_LAYERS} layers measured)",
        f"{fast:.0f} s",
        f"{baseline:.0f} s",
        baseline / fast,
        4,
    )


if __name__ == "__main__":
    on_a_run(__doc__, measure)
