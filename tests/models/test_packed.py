"""Packed linear layers give what plain ones do, before and after their weights change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from somatlas.models.packed import PackedLinear, pack_linears, repack
from somatlas.models.swapped import swapped

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of PyTorch has no oneDNN"
)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (3, 5), (200,)])
def test_a_packed_layer_multiplies_as_a_plain_one(bias: bool, rows: tuple[int, ...]) -> None:
    layer = nn.Linear(24, 40, bias=bias)
    x = torch.randn(*rows, 24)
    expected = layer(x)
    pack_linears(layer)
    assert isinstance(layer, PackedLinear)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("change", ["in place", "detached", "replaced", "dtype", "copied"])
def test_a_changed_weight_is_the_one_that_counts(change: str) -> None:
    layer = nn.Linear(24, 40)
    pack_linears(layer)
    x = torch.randn(3, 24)
    before = layer(x)
    if change == "in place":
        layer.weight.mul_(2)
    elif change == "detached":
        layer.weight.detach()[:5].copy_(torch.zeros(5, 24))
    elif change == "replaced":
        layer.weight = nn.Parameter(torch.ones(40, 24))
    elif change == "dtype":
        layer.double()
        x = x.double()
    else:
        layer = copy.deepcopy(layer)
        layer.weight.add_(1)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    if change != "dtype":
        assert not torch.allclose(layer(x), before)


def test_gradients_flow_through_a_packed_layer() -> None:
    layer = nn.Linear(4, 4)
    pack_linears(layer)
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.weight.grad is not None


@torch.no_grad()
def test_what_is_restored_is_packed_again_and_gives_the_same_bits() -> None:
    layer = nn.Linear(48, 40)
    pack_linears(layer)
    x = torch.randn(3, 48)
    before, weight = layer(x), layer.weight.detach().clone()
    layer.weight.mul_(2)
    layer.weight.copy_(weight)
    assert not layer.pack.holds(layer.weight)
    repack(layer)
    assert layer.pack.holds(layer.weight)
    assert torch.equal(layer(x), before)


@torch.no_grad()
def test_swapped_weights_count_wherever_they_are_shared_and_come_back() -> None:
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    both = nn.Sequential(first, second)
    pack_linears(both)
    x, own = torch.randn(2, 8), first.weight
    before = both(x)
    with swapped(both, {id(own): 2 * torch.eye(8)}):
        assert first.weight is second.weight
        torch.testing.assert_close(both(x), 4 * x)
    assert first.weight is second.weight is own
    assert torch.equal(both(x), before)
    with pytest.raises(RuntimeError), swapped(both, {id(own): torch.eye(8)}):
        raise RuntimeError
    assert first.weight is own
