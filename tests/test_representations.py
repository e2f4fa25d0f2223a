"""Representations against the model's own hidden states, one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from somatlas import InputError
from somatlas.models.language_model import LanguageModel
from somatlas.representations import represent

PROMPTS = [
    "Hi",
    "A much longer prompt that goes on for a while, so that batches need padding",
    "Where is the station?",
    "",
    "日本語のテキスト",
]


def reference(lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
    """(n, L, d) from output_hidden_states, unbatched; the last entry there is after the norm."""
    captured: list[torch.Tensor] = []
    last = lm.structure.blocks[-1].register_forward_hook(
        lambda _m, _a, out: captured.append(out[0] if isinstance(out, tuple) else out)
    )
    rows = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([lm.token_ids(prompt)])
            states = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
            rows.append(torch.stack([*(s[0, -1] for s in states[1:-1]), captured[-1][0, -1]]))
    last.remove()
    return torch.stack(rows)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm(dim=-1).max() / expected.norm(dim=-1).min())


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_equal_single_prompts(tiny: LanguageModel, batch_size: int) -> None:
    actual = represent(tiny, PROMPTS, range(tiny.n_layers), batch_size=batch_size)
    assert actual.shape == (5, 4, 32)
    torch.testing.assert_close(actual, reference(tiny, PROMPTS), rtol=1e-4, atol=1e-4)


def test_layers_come_in_the_order_asked(tiny: LanguageModel) -> None:
    every = represent(tiny, PROMPTS, range(4), batch_size=2)
    some = represent(tiny, PROMPTS, [2, 0], batch_size=2)
    torch.testing.assert_close(some, every[:, [2, 0]])


def test_nothing_above_the_highest_layer_is_computed(tiny: LanguageModel) -> None:
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(tiny.structure.blocks)
    ]
    represent(tiny, ["Hi"], [1], batch_size=1)
    for handle in handles:
        handle.remove()
    assert calls == [0, 1] or calls == [0]  # the deepest block's own hooks may be cut short
    assert represent(tiny, ["Hi"], [3], batch_size=1).isfinite().all()


def test_the_template_writes_the_only_bos(tiny: LanguageModel) -> None:
    ids = tiny.token_ids("Hi")
    assert ids.count(tiny.tokenizer.bos_token_id) == 1
    assert ids[0] == tiny.tokenizer.bos_token_id
    assert tiny.tokenizer("Hi")["input_ids"][0] == ids[0]  # the tokenizer alone would add one


def test_a_system_prompt_stands_before_the_prompt(tiny: LanguageModel) -> None:
    with_system = LanguageModel(tiny.model, tiny.tokenizer, tiny.structure, "x", system="Be kind.")
    assert tiny.tokenizer.decode(with_system.token_ids("Hi")) == "<bos>Be kind.<user>Hi<reply>"


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_out_of_range_is_refused(tiny: LanguageModel, layer: int) -> None:
    with pytest.raises(InputError, match=f"layer {layer} is out of range: tiny has layers 0 to 3"):
        represent(tiny, PROMPTS, [layer], batch_size=2)


def test_nan_is_refused_with_its_layer(tiny: LanguageModel) -> None:
    def poison(_m: object, _a: object, out: object) -> object:
        return out * float("nan") if isinstance(out, torch.Tensor) else (out[0] * float("nan"),)  # type: ignore[index]

    handle = tiny.structure.blocks[2].register_forward_hook(poison)
    try:
        with pytest.raises(InputError, match="at layer 2 hold NaN"):
            represent(tiny, PROMPTS, range(4), batch_size=2)
    finally:
        handle.remove()


@pytest.mark.slow
def test_the_default_models_batches_equal_single_prompts(default_model: LanguageModel) -> None:
    actual = represent(default_model, PROMPTS, range(default_model.n_layers), batch_size=5)
    expected = reference(default_model, PROMPTS)
    assert relative_error(actual, expected) < 1e-4
