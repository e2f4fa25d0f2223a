"""The model under attack, and what the attacker has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.arguments import check_whole
from somatlas.attacks.attack import Attempt
from somatlas.attacks.frontier import BUDGETS
from somatlas.directions.contract import Context, Contrast
from somatlas.directions.direction_set import mean_difference
from somatlas.errors import InputError
from somatlas.files import read_tensors, write_tensors
from somatlas.measures.drift import Drift
from somatlas.measures.layer_effects import layer_effects
from somatlas.measures.layer_rule import (
    MAX_KL,
    LayerScore,
    first_token_log_probabilities,
    mean_kl,
    refusal_scores,
)
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import PromptSplit, check_split, spread, texts
from somatlas.representations.extract import residual_stream
from somatlas.searches.trials import Asking

_GROSS = BUDGETS[-1]  # nats a token
DRIFT_REPLIES = 4  # that the screen feeds back: what it rules out is gross


@dataclass
class Target:
    """The model under attack, and what the attacker has.

    train : the attacker's own prompts, that directions are made of. val : those that he searches
    on; `screen_prompts` of a side, evenly spread, are what first tokens are scored on.
    refusal_tokens : ids that open a refusal of this model. other : a second model, for attacks that
    take something of it. folder : keeps what is dear to make, so that whoever goes on after an
    interruption, or beside, need not make it again. asking : how it is asked and who judges, for
    attacks that learn from replies. drift : on harmless replies, for the screen of layers; without
    it their first tokens alone are looked at.

    Raises InputError where a side of train or val is empty, or there are no refusal tokens.
    """

    lm: LanguageModel
    train: PromptSplit
    val: PromptSplit
    refusal_tokens: Sequence[int]
    seed: int = 0
    batch_size: int = 128
    other: LanguageModel | None = None
    folder: Path | None = None
    screen_prompts: int = 32
    asking: Asking | None = None
    drift: Drift | None = None
    _known: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_split(self.train)
        check_split(self.val)
        check_whole("seed", self.seed, 0)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("screen_prompts", self.screen_prompts, 1)
        if not self.refusal_tokens:
            raise InputError("an attack needs the tokens that open a refusal: give one at least")

    @property
    def layers(self) -> range:
        """All layers of the model."""
        return range(self.lm.n_layers)

    def of_other(self) -> Target:
        """The second model as a target of its own, with the same prompts.

        Raises InputError where there is none, or its vectors or tokens are not the first's.
        """
        if self.other is None:
            raise InputError("there is no second model")
        if self.other.d_model != self.lm.d_model:
            raise InputError(
                f"{self.other.name} has d_model {self.other.d_model} and {self.lm.name} "
                f"{self.lm.d_model}: directions of one mean nothing in the other"
            )
        if self.other.tokenizer.get_vocab() != self.lm.tokenizer.get_vocab():
            raise InputError(f"{self.other.name} has another vocabulary than {self.lm.name}")
        folder = None if self.folder is None else self.folder / "other"
        return replace(self, lm=self.other, other=None, folder=folder, asking=None, drift=None)

    def kept(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `make` gives, made once: in memory, and in the folder where there is one.

        name : says all that the tensors depend on beside the target.
        """
        if name not in self._known:
            path = None
            if self.folder is not None:
                digest = hashlib.sha256(name.encode()).hexdigest()[:16]
                path = self.folder / f"{digest}.safetensors"
            if path is not None and path.exists():
                self._known[name] = read_tensors(path)[0]
            else:
                made = self._known[name] = make()
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_tensors(path, made, {"what": name})
        return self._known[name]

    def representations(
        self, layers: Sequence[int] | None = None, attempt: Attempt | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n, L, d) harmful and (m, L, d) harmless float32, at the last token of each train prompt.

        layers : all if not given. attempt : an edit under which they are made. Made once, at all
        layers.
        """
        asked = list(self.layers if layers is None else layers)
        under = "" if attempt is None else f" under {attempt.family}, {attempt.name}"
        sides = self.kept(f"representations{under}", lambda: self._sides(attempt))
        return sides["harmful"][:, asked], sides["harmless"][:, asked]

    def _sides(self, attempt: Attempt | None) -> dict[str, Tensor]:
        def of(prompts: Sequence[str]) -> Tensor:
            return residual_stream(self.lm, prompts, self.layers, batch_size=self.batch_size)

        with (attempt or _NOTHING).applied(self.lm):
            return {"harmful": of(texts(self.train.harmful)), "harmless": of(self._harmless)}

    @property
    def _harmless(self) -> list[str]:
        return texts(self.train.harmless)

    def contrast(self, layer: int, attempt: Attempt | None = None) -> Contrast:
        """What methods make directions of at a layer, categories and other layers' SD included."""
        harmful, harmless = self.representations([layer], attempt)
        context = Context([p.category for p in self.train.harmful], layer=layer)
        if attempt is None:
            differences = dict(zip(self.layers, self.differences(), strict=True))
            context = replace(context, differences=differences)
        return Contrast.of(harmful[:, 0], harmless[:, 0], context)

    def differences(self, attempt: Attempt | None = None) -> Tensor:
        """(L, d) the mean difference of every layer."""
        harmful, harmless = self.representations(None, attempt)
        return mean_difference(harmful, harmless)

    def screened_layers(self) -> list[LayerScore]:
        """Every layer's score when its mean difference is ablated, the most promising first.

        Those whose KL at the first token is below the layer rule's limit come before the others,
        and of each kind those of lowest refusal score. What babbles does not open with a refusal
        either: layers under which the first token, or a few whole harmless replies, drift by more
        than the greatest cap come last, as nothing that they give would count. This costs one
        forward pass a layer, and another on those replies where the first token does not tell.
        """
        rows = self.kept(f"screen, drift on {self._drift_replies} replies", self._screen)

        def tier(layer: int) -> int:
            _, kl, drift = scores[layer]
            return 2 if drift > _GROSS else int(kl >= MAX_KL)

        scores = rows["scores"].tolist()
        found = [LayerScore(layer, *scores[layer][:2]) for layer in self.layers]
        return sorted(found, key=lambda s: (tier(s.layer), s.refusal_score, s.layer))

    @property
    def _drift_replies(self) -> int:
        return 0 if self.drift is None else min(DRIFT_REPLIES, len(self.drift.prompts))

    def _screen(self) -> dict[str, Tensor]:
        """(L, 3) each layer's refusal score, KL at the first token, and drift: that KL again where
        it tells enough, or nothing else is at hand."""
        harmful, harmless = self.screen_sides
        directions = dict(zip(self.layers, self.differences(), strict=True))
        effects = layer_effects(
            self.lm,
            directions,
            harmful,
            harmless,
            refusal_tokens=self.refusal_tokens,
            base_harmless=self._base_harmless,
            batch_size=self.batch_size,
        )
        scores = [effect.score(layer) for layer, effect in effects]
        drift = None if self.drift is None else self.drift.sample(self._drift_replies)

        def drifted(score: LayerScore) -> float:
            if drift is None or score.kl > _GROSS:
                return score.kl
            return drift.under(Projection(directions[score.layer][None]))

        rows = [[score.refusal_score, score.kl, drifted(score)] for score in scores]
        return {"scores": torch.tensor(rows, dtype=torch.float64)}

    @property
    def screen_sides(self) -> tuple[list[str], list[str]]:
        """The harmful and harmless val prompts that first tokens are scored on."""
        harmful, harmless = (
            texts(spread(side, self.screen_prompts))
            for side in (self.val.harmful, self.val.harmless)
        )
        return harmful, harmless

    @property
    def _base_harmless(self) -> Tensor:
        def make() -> dict[str, Tensor]:
            prompts = self.screen_sides[1]
            log_p = first_token_log_probabilities(self.lm, prompts, self.batch_size)
            return {"log_p": log_p}

        return self.kept("first tokens", make)["log_p"]

    def first_token_scores(self, attempt: Attempt) -> tuple[float, float]:
        """Refusal score on harmful val prompts, and KL in nats on harmless ones, of the first token
        of replies under an attempt."""
        found = self.kept(
            f"first tokens under {attempt.family}, {attempt.name}",
            lambda: {"scores": torch.tensor(self._first_tokens(attempt), dtype=torch.float64)},
        )
        score, kl = found["scores"].tolist()
        return score, kl

    def _first_tokens(self, attempt: Attempt) -> tuple[float, float]:
        harmful, harmless = self.screen_sides
        with attempt.applied(self.lm):
            log_p = first_token_log_probabilities(self.lm, [*harmful, *harmless], self.batch_size)
        score = float(refusal_scores(log_p[: len(harmful)], self.refusal_tokens).mean())
        return score, mean_kl(self._base_harmless, log_p[len(harmful) :])


_NOTHING = Attempt("none", "none", 0, {})
