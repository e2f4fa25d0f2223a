"""P = I - A B^T against dense float64 algebra; hooks and weight edits against each other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from somatlas import InputError, Projection
from somatlas.ablation import (
    LayerProjections,
    Mode,
    RowProjections,
    ablated,
    edited_places,
    edited_weights,
    norm_preserving,
)
from somatlas.models.language_model import LanguageModel
from somatlas.models.output_maps import is_tied, output_maps, placed_output_maps, untie_head
from somatlas.models.packed import repack
from somatlas.models.structure import find_structure

PROMPTS = ["Hello there", "A longer prompt, with a comma", "?"]


def directions(k: int, d: int, seed: int = 0) -> torch.Tensor:
    """Correlated directions of different lengths, as a map gives them."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(d, generator=generator)
    return shared + torch.randn(k, d, generator=generator) * torch.rand(k, 1, generator=generator)


def dense(vectors: torch.Tensor, mode: Mode) -> torch.Tensor:
    """P by the definition, without any low-rank form."""
    d = vectors.shape[1]
    if mode == "subspace":
        Q, _ = np.linalg.qr(vectors.double().numpy().T)
        return torch.from_numpy(np.eye(d) - Q @ Q.T)
    P = torch.eye(d, dtype=torch.float64)
    for v in vectors.double():
        u = v / v.norm()
        P = (torch.eye(d, dtype=torch.float64) - torch.outer(u, u)) @ P
    return P


vectors_strategy = (
    st.integers(1, 6)
    .flatmap(lambda k: arrays(np.float64, (k, 9), elements=st.floats(-5, 5, allow_subnormal=False)))
    .filter(lambda v: bool((np.linalg.norm(v, axis=1) > 1e-3).all()))
)


@pytest.mark.parametrize("mode", ["sequential", "subspace"])
@pytest.mark.parametrize("k", range(1, 8))
def test_low_rank_form_equals_dense_algebra(mode: Mode, k: int) -> None:
    vectors = directions(k, 48)
    P = Projection(vectors, mode)
    torch.testing.assert_close(P.matrix(), dense(vectors, mode), rtol=0, atol=1e-12)
    assert P.A.shape == P.B.shape == (48, k)
    Y = torch.randn(5, 3, 48, dtype=torch.float64)
    torch.testing.assert_close(P.apply(Y), Y @ dense(vectors, mode).T)


@settings(deadline=None)
@given(vectors=vectors_strategy)
def test_subspace_mode_is_an_orthogonal_projection(vectors: np.ndarray) -> None:
    P = Projection(vectors, "subspace").matrix()
    torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-9)
    torch.testing.assert_close(P, P.T, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(vectors=vectors_strategy, seed=st.integers(0, 1000))
def test_subspace_mode_ignores_order_and_length(vectors: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    changed = rng.permutation(vectors) * rng.uniform(0.5, 3, size=(len(vectors), 1))
    singular = np.linalg.svd(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[1]
    if 0 < (singular[singular > 1e-13]).min() < 1e-4:
        return  # nearly dependent: the span itself is ill-conditioned
    torch.testing.assert_close(
        Projection(vectors, "subspace").matrix(),
        Projection(changed, "subspace").matrix(),
        rtol=0,
        atol=1e-7,
    )


@settings(deadline=None)
@given(vectors=vectors_strategy, scales=st.lists(st.floats(0.1, 9), min_size=6, max_size=6))
def test_sequential_mode_ignores_length_and_sign(vectors: np.ndarray, scales: list[float]) -> None:
    factors = np.array(scales[: len(vectors)]) * np.where(np.arange(len(vectors)) % 2, -1, 1)
    torch.testing.assert_close(
        Projection(vectors).matrix(),
        Projection(vectors * factors[:, None]).matrix(),
        rtol=0,
        atol=1e-9,
    )


@settings(deadline=None)
@given(vectors=vectors_strategy)
def test_what_is_ablated_projects_to_zero(vectors: np.ndarray) -> None:
    Y = torch.randn(4, 9, dtype=torch.float64)
    last = torch.from_numpy(vectors[-1] / np.linalg.norm(vectors[-1]))
    assert (Projection(vectors).apply(Y) @ last).abs().max() < 1e-9
    units = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert (Projection(vectors, "subspace").apply(Y) @ units.T).abs().max() < 1e-6


def test_two_equal_directions_are_one() -> None:
    v = directions(1, 16)
    for mode in ("sequential", "subspace"):
        twice = Projection(torch.cat([v, 2 * v]), mode)
        torch.testing.assert_close(twice.matrix(), Projection(v, mode).matrix())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    P = Projection(directions(3, 64))
    Y = torch.randn(10, 64).to(dtype)
    exact = Y.double() @ P.matrix().T
    assert P.apply(Y).dtype == dtype
    torch.testing.assert_close(P.apply(Y).double(), exact, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(1, 4), "length 0"),
        (torch.full((1, 4), float("nan")), "length nan"),
        (torch.zeros(4), "non-empty"),
        (torch.zeros(0, 4), "non-empty"),
    ],
)
def test_bad_directions_are_refused(vectors: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Projection(vectors)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="sequential or subspace"):
        Projection(torch.ones(1, 4), "both")  # type: ignore[arg-type]


def logits(lm: LanguageModel, model: nn.Module | None = None) -> torch.Tensor:
    """Logits of every real token of PROMPTS, one prompt at a time, so no padding is in play."""
    model = model or lm.model
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([lm.token_ids(p)])).logits[0] for p in PROMPTS]
    return torch.cat(rows)


def dense_reference(
    lm: LanguageModel, P: torch.Tensor, keep_head: bool = True, own: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """Logits in float64 with the dense P put after every writer, written out by hand. own : those
    of each block, where they are not P."""
    model = copy.deepcopy(lm.model).double()
    head = copy.deepcopy(model.lm_head.weight.data)
    embedding = model.model.embed_tokens
    embedding.weight = nn.Parameter(embedding.weight @ P.T)
    for number, block in enumerate(model.model.layers):
        M = own[number] if own else P
        for writer in (block.self_attn.o_proj, block.mlp.down_proj):
            writer.weight = nn.Parameter(M @ writer.weight)
            if writer.bias is not None:
                writer.bias = nn.Parameter(M @ writer.bias)
    model.lm_head.weight = nn.Parameter(head if keep_head else head @ P.T)
    return logits(lm, model)


def weight_edited(lm: LanguageModel, projection: Projection) -> torch.Tensor:
    """Logits with edited weights; a tied head is untied first, as it is not a writer."""
    model = copy.deepcopy(lm.model)
    untie_head(model)
    structure = find_structure(model, torch.tensor([lm.token_ids("Hi")]))
    with edited_weights(output_maps(model, structure), projection):
        return logits(lm, model)


@pytest.mark.parametrize("mode", ["sequential", "subspace"])
@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("subject", ["tiny", "tiny_untied"])
def test_hooks_weight_edit_and_dense_algebra_give_the_same_logits(
    subject: str, k: int, mode: Mode, request: pytest.FixtureRequest
) -> None:
    lm: LanguageModel = request.getfixturevalue(subject)
    projection = Projection(directions(k, lm.d_model), mode)
    with lm.ablate(projection):
        hooked = logits(lm)
    edited = weight_edited(lm, projection)
    expected = dense_reference(lm, projection.matrix()).float()
    scale = expected.abs().max()
    torch.testing.assert_close(hooked / scale, expected / scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(edited / scale, expected / scale, rtol=0, atol=1e-4)
    assert (hooked - logits(lm)).abs().max() > 0.01 * scale  # the ablation does something


def test_each_blocks_own_ablation_equals_dense_algebra_in_hooks_and_in_weights(
    tiny_untied: LanguageModel,
) -> None:
    lm = tiny_untied
    sets = [directions(2, lm.d_model, seed) for seed in range(lm.n_layers)]
    strengths = [0.5, 0.0, 1.0, 1.2]
    layered = LayerProjections.of_directions(sets, strengths)
    identity = torch.eye(lm.d_model, dtype=torch.float64)
    own = [
        identity - s * (identity - dense(one, "subspace"))
        for s, one in zip(strengths, sets, strict=True)
    ]
    expected = dense_reference(lm, own[0], own=own).float()
    with lm.ablate(layered):
        hooked = logits(lm)
    with edited_places(placed_output_maps(lm.model, lm.structure), layered):
        edited = logits(lm)
    repack(lm.model)
    scale = expected.abs().max()
    torch.testing.assert_close(hooked / scale, expected / scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(edited / scale, expected / scale, rtol=0, atol=1e-4)
    assert (hooked - logits(lm)).abs().max() > 0.01 * scale


@pytest.mark.parametrize("strength", [0.3, 1.5])
def test_strength_mixes_the_projection_with_the_identity(strength: float) -> None:
    vectors = directions(3, 16)
    identity = torch.eye(16, dtype=torch.float64)
    for mode in ("sequential", "subspace"):
        expected = (1 - strength) * identity + strength * dense(vectors, mode)
        actual = Projection(vectors, mode, strength)
        torch.testing.assert_close(actual.matrix(), expected, rtol=0, atol=1e-12)


def test_norm_preserving_edits_keep_every_inputs_length(tiny_untied: LanguageModel) -> None:
    """By hand in float64; what lies along the directions is gone."""
    lm, P = tiny_untied, Projection(directions(2, tiny_untied.d_model), "subspace")
    placed = placed_output_maps(lm.model, lm.structure)
    found = norm_preserving(placed, P)
    repack(lm.model)
    for _, maps in placed:
        for one in maps:
            new = found[id(one.weight)].movedim(one.axis, -1).double()
            old = one.vectors.double()
            projected = old @ P.matrix().T
            lengths = old.norm(dim=-1) / projected.norm(dim=-1)
            expected = (projected * lengths[..., None]).nan_to_num()  # a padding token's row is 0
            torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5)
            assert (new @ P.A).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerProjections([None, None]), "of one length, not none"),
        (lambda: LayerProjections.of_directions([torch.ones(1, 4)], [1.0, 1.0]), "give one each"),
        (lambda: LayerProjections.of_directions([torch.ones(1, 4)]).at(1), "another model"),
        (lambda: Projection(torch.ones(1, 4), strength=0), "strength"),
    ],
)
def test_what_is_no_ablation_by_layer_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_module_that_writes_in_two_blocks_cannot_be_ablated_differently() -> None:
    module = nn.Identity()
    layered = LayerProjections.of_directions([torch.ones(1, 4), torch.eye(4)[:1]])
    with (
        pytest.raises(InputError, match="Identity writes in several blocks"),
        ablated([(0, module), (1, module)], layered),
    ):
        pass


def test_removing_the_hooks_restores_the_model_bit_for_bit(tiny: LanguageModel) -> None:
    before = logits(tiny)
    with tiny.ablate(Projection(directions(3, tiny.d_model))):
        during = logits(tiny)
    assert not torch.equal(before, during)
    assert torch.equal(before, logits(tiny))


def test_hooks_are_removed_after_an_error(tiny: LanguageModel) -> None:
    before = logits(tiny)
    with pytest.raises(RuntimeError), tiny.ablate(Projection(directions(1, tiny.d_model))):
        raise RuntimeError
    assert torch.equal(before, logits(tiny))


def test_directions_of_another_model_are_refused(tiny: LanguageModel) -> None:
    with pytest.raises(InputError, match="17 values, tiny has d_model 32"):
        tiny.ablate(Projection(torch.ones(1, 17)))


def test_edited_weights_are_restored_to_rounding(tiny_untied: LanguageModel) -> None:
    """From the thin factor that was removed: no second copy of the weights is kept."""
    model = copy.deepcopy(tiny_untied.model)
    structure = find_structure(model, torch.tensor([tiny_untied.token_ids("Hi")]))
    with edited_weights(
        output_maps(model, structure), Projection(directions(5, tiny_untied.d_model))
    ):
        pass
    for (name, now), was in zip(
        model.named_parameters(), tiny_untied.model.parameters(), strict=True
    ):
        torch.testing.assert_close(now, was, rtol=1e-6, atol=1e-6, msg=name)


def test_a_tied_head_can_be_edited_too_as_the_paper_does(tiny: LanguageModel) -> None:
    projection = Projection(directions(3, tiny.d_model))
    paper = dataclasses.replace(tiny, edit_head=True)
    assert is_tied(tiny.model)
    with paper.ablate(projection):
        hooked = logits(paper)
    expected = dense_reference(tiny, projection.matrix(), keep_head=False).float()
    torch.testing.assert_close(hooked, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_transposed_map_is_the_transpose() -> None:
    P = Projection(directions(3, 16))
    torch.testing.assert_close(P.transposed().matrix(), P.matrix().T)


def test_arrays_are_mapped_as_tensors_are() -> None:
    P = Projection(np.random.default_rng(0).normal(size=(2, 6)))
    rows = np.random.default_rng(1).normal(size=(4, 6))[::2]
    mapped = P.apply(rows)
    assert isinstance(mapped, np.ndarray)
    np.testing.assert_allclose(mapped, rows @ P.matrix().numpy().T)


def test_one_row_for_all_becomes_one_for_each() -> None:
    """As what a table of positions puts out, of which each row's ablation takes something else."""
    edits = [Projection(torch.eye(6)[:1]), Projection(torch.eye(6)[2:4])]
    rows = RowProjections(edits)
    rows.assign([1, 0, 1])
    y = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    found = rows.at(None)
    assert found is not None
    expected = torch.cat([edits[i].apply(y) for i in (1, 0, 1)])
    torch.testing.assert_close(found.apply(y), expected)
    flat = y.expand(3, 4, 6).reshape(12, 6)
    torch.testing.assert_close(found.apply(flat), expected.reshape(12, 6))
    with pytest.raises(InputError, match="put out 6 rows where 3 were given"):
        found.apply(torch.ones(6, 4, 6))
