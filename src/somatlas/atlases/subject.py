"""What an atlas is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.ablation.projection import Mode
from somatlas.directions.contract import Contrast, DirectionMethod
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.som import SOM
from somatlas.evaluation.verdicts import VerdictRow
from somatlas.measures.drift import Drift
from somatlas.models.language_model import LanguageModel
from somatlas.prompts.prompt_set import PromptSplit
from somatlas.representations.extract import residual_stream
from somatlas.searches.trials import Asking, Known


@dataclass(frozen=True)
class Mapped:
    """A fitted map, and how well it keeps its grid (`somatlas.atlases.map_errors`)."""

    som: SOM
    errors: Mapping[str, Any]

    @property
    def ordered(self) -> bool:
        """Whether neighbours on the grid are neighbours in space."""
        return bool(self.errors["ordered"])


@dataclass(frozen=True)
class Subject:
    """A model, the directions made of it, what they do, and the prompts that all of it is of.

    layer : that is cut. contrast : representations (n, d) and (m, d) of the train prompts there.
    train, test : prompts. directions : in rank order. single : (d,) SD. method : what made the
    directions, by name, and methods : any method by name, not fitted, to make others beside.
    mapped : the map, where the method makes one.

    chosen : (k, d) what is ablated together, and ranks : their ranks; own : whether these are ranks
    of the directions, as those of a file of a user's are not. mode : how they are ablated.

    asking : how the model is asked under ablations. drift : on harmless test replies. borderline :
    verdicts on the unchanged model's replies to borderline test prompts, in their order.
    refusal_tokens, epsilon : of the refusal score (`somatlas.measures.layer_rule`), none where
    there is no score. reads : prompts -> which token of each is read (`residual_stream`). replies :
    (condition, prompt) -> the answer to a test prompt, as `asking` would be given it, of the model
    as it is ("base"), without SD ("sd"), without what is chosen ("md"): not asked for again.
    """

    lm: LanguageModel
    layer: int
    contrast: Contrast
    train: PromptSplit
    test: PromptSplit
    directions: DirectionSet
    single: Tensor
    method: str
    methods: Callable[[str], DirectionMethod]
    chosen: Tensor
    asking: Asking
    drift: Drift
    borderline: Sequence[VerdictRow]
    ranks: Sequence[int] = ()
    own: bool = True
    candidates: int = 16
    k: int = 3
    mode: Mode = "sequential"
    mapped: Mapped | None = None
    refusal_tokens: Sequence[int] = ()
    epsilon: float = 0.0
    of_refusal: bool = True
    seed: int = 0
    reads: Callable[[Sequence[str]], Mapping[str, Any]] = field(default=lambda _: {})
    replies: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def harmful(self) -> NDArray[np.float64]:
        """(n, d) harmful representations."""
        return np.asarray(self.contrast.harmful.double())

    @property
    def harmless(self) -> NDArray[np.float64]:
        """(m, d) harmless ones."""
        return np.asarray(self.contrast.harmless.double())

    def represent(
        self,
        prompts: Sequence[str],
        projection: Projection | None = None,
        reads: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """(n, d) of other prompts at the layer, under an ablation. reads : see `reads`, which must
        be asked before an ablation is in force; that of the prompts if not given."""
        where = self.reads(prompts) if reads is None else reads
        with self.lm.ablate(projection):
            vectors = residual_stream(
                self.lm, prompts, [self.layer], batch_size=self.asking.batch_size, **where
            )
        return vectors[:, 0]

    def known(self, conditions: Mapping[int, str], prompts: Sequence[str]) -> Known:
        """What is known of the replies to test prompts. conditions : see `Known`, by name."""
        return {
            row: [self.replies[name, prompt] for prompt in prompts]
            for row, name in conditions.items()
            if all((name, prompt) in self.replies for prompt in prompts)
        }

    @property
    def rest(self) -> list[int]:
        """The ranks that are not chosen."""
        return [i for i in range(len(self.directions)) if not self.own or i not in self.ranks]

    @property
    def chosen_first(self) -> Tensor:
        """(k + r, d) what is chosen, then the other directions in order."""
        return torch.cat([self.chosen, self.directions.vectors[self.rest]])
