"""An edited model as a standard checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from somatlas.ablation import Projection, edited_weights
from somatlas.errors import InputError
from somatlas.exports.card import Provenance
from somatlas.exports.carried import carry_over, left_behind
from somatlas.files import atomic_folder, write_text
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import output_maps, untie_head

PROBES = ("Hello there", "Name three rivers in Europe.", "How do I boil an egg?")
EXACT, ROUGH = 1e-3, 5e-2  # largest difference of logits, over the largest logit


def save_model(
    lm: LanguageModel, projection: Projection, folder: Path, provenance: Provenance
) -> None:
    """Write the model with P in its weights, tokenizer, template and card; lm stays as it was.

    What else its source has is carried over (`somatlas.exports.carried`), what cannot be is named
    in the card.

    An output head that shares the embedding's matrix gets one of its own first, unless it is to be
    edited with it. Raises InputError where the folder is there already, the weights cannot be
    edited, a norm follows a write and the hooks act after it, or the edit is not what hooks do.
    """
    check_new(folder)
    check_editable(lm)
    if not lm.edit_head:
        untie_head(lm.model)
    maps = output_maps(lm.model, lm.structure)
    with lm.ablate(projection):
        expected = probe_logits(lm)
    with edited_weights(maps, projection):
        gap = relative_gap(probe_logits(lm), expected)
        check_gap(lm, gap, "the edited weights")
        with atomic_folder(folder) as target:
            lm.model.save_pretrained(target)
            lm.tokenizer.save_pretrained(target)
            form = (
                f"A standard checkpoint of the class {type(lm.model).__name__}: every matrix that "
                "writes to the residual stream is P W. Its logits differ from those of hooks by "
                f"{gap:.1e} of the largest."
            )
            apart = [*carry_over(lm, target), *left_behind(lm)]
            form += "".join(f"\n\n- {line}" for line in apart)
            write_text(target / "README.md", provenance.card(f"{lm.name}, edited", form))


def check_new(path: Path) -> None:
    """Raise InputError where something is at a path that an export would write to."""
    if path.exists():
        raise InputError(f"{path} exists already: give a path where nothing is yet")


def check_editable(lm: LanguageModel) -> None:
    """Raise InputError where weights cannot carry what the hooks do."""
    if lm.site == "residual" and lm.structure.normed:
        raise InputError(
            f'{lm.name} has a norm after its writes, and no weight edit equals site = "residual": '
            "export with --site projection, or keep to hooks"
        )


def check_gap(lm: LanguageModel, gap: float, what: str) -> None:
    """Raise InputError where two forms that must agree do not."""
    limit = EXACT if lm.model.dtype == torch.float32 else ROUGH
    if not gap <= limit:
        raise InputError(
            f"{what} of {lm.name} do not give the logits of the hooks (they differ by {gap:.1e} of "
            f"the largest, {limit:.0e} is allowed): nothing was saved"
        )


@torch.no_grad()
def probe_logits(lm: LanguageModel) -> Tensor:
    """(tokens, vocabulary) float32 logits of all tokens of three harmless prompts."""
    rows = []
    for prompt in PROBES:
        ids = torch.tensor([lm.token_ids(prompt)], device=lm.model.device)
        rows.append(lm.model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def relative_gap(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value expected; equal infinite logits, as of tokens
    that a model masks, do not differ."""
    difference = torch.where(actual == expected, 0.0, (actual - expected).abs())
    return float(difference.max() / expected[expected.isfinite()].abs().max())
