"""docs/models.md, from the tiny models themselves: python tests/model_table.py writes it."""

from __future__ import annotations

from pathlib import Path

import transformers

from architectures import ARCHITECTURES, language_model
from somatlas import InputError
from somatlas.exports.adapter import carried_by_lora
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import output_maps
from somatlas.models.structure import Write

PATH = Path(__file__).parents[1] / "docs" / "models.md"

_HEAD = """\
# Models

Any decoder of `transformers` whose blocks add up: at load, somatlas finds what each block adds to
the residual stream by arithmetic, and refuses a model that does not add up. `somatlas doctor MODEL`
prints the account of yours. The table is written by `python tests/model_table.py` from tiny random
models, one an architecture, and a test compares it with what they say. For each of them the tests
show: the account adds up to 1e-5; hooks and edited weights give the same logits to 1e-4; a
left-padded batch gives what single prompts give; with `--site residual` nothing along the
directions is left in the residual stream, nor in what the norms inside a block read of it. Rows so
long that sparse attention leaves tokens out (DeepSeek-V3.2, GLM-5, MiniMax-M3) or that positions
are stretched (LongRoPE) share a batch with rows of the same length alone: padding changes them.

Refused, each in a sentence: streams that are not one vector a token (Gemma 3n, DeepSeek-V4,
Hunyuan-V4, Qwen4-Exp), blocks that are run several times (HRM, Dory) or hold two of each part
(LongCat-Flash), residuals with a gain of their own for each channel (Doge, Zaya), parts that write
to other parts but not to the stream (Zamba, Zamba2), and Inkling 2, whose blocks do not add up.

"norm" after a part: what it writes passes a norm before it is added. The paper ablates before that
norm, so something comes back; a run measures it ("leak"). `--site residual` ablates after it, by
hooks only. LoRA: what an adapter of rank k leaves out.

| architecture | class | each block adds | hooks | weights | LoRA leaves out |
|---|---|---|---|---|---|
"""


def table() -> str:
    """The page as text."""
    return _HEAD + "".join(_row(name) for name in ARCHITECTURES)


def _row(name: str) -> str:
    lm = language_model(name)
    hooks = "exact at the part, or after the norm" if lm.structure.normed else "exact"
    try:
        maps = output_maps(lm.model, lm.structure)
    except InputError:
        weights, lora = "no", "-"
    else:
        weights = "exact at the part" if lm.structure.normed else "exact"
        lora = ", ".join(carried_by_lora(lm, maps)[1]) or "nothing"
    parts = "; ".join(dict.fromkeys(_parts(lm, i) for i in range(lm.n_layers)))
    return f"| {name} | {type(lm.model).__name__} | {parts} | {hooks} | {weights} | {lora} |\n"


def _parts(lm: LanguageModel, block: int) -> str:
    return " + ".join(map(_term, lm.structure.block_writes[block]))


def _term(write: Write) -> str:
    factor = "" if abs(write.scale - 1) < 1e-3 else f"{write.scale:.2g} x "
    return f"{factor}`{write.path}`" + (" (norm)" if write.norm is not None else "")


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    PATH.write_text(table(), encoding="utf-8")
