"""What every method that makes directions must do."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from somatlas.directions.contract import Context, DirectionMethod
from somatlas.directions.direction_set import DirectionSet
from somatlas.directions.som import SOM
from somatlas.errors import InputError

_N, _M, _D = 60, 45, 12


class MethodContract:
    """Inherit it, write `make`, and let pytest find the class."""

    @abstractmethod
    def make(self, seed: int = 0) -> DirectionMethod:
        """The method, not fitted, for vectors of 12 values; with this seed where it has one."""

    def fitted(self, seed: int = 0) -> DirectionMethod:
        """Fitted on clouds of three categories."""
        return self.make(seed).fit(*clouds(), context=a_context())

    def test_it_says_what_it_is(self) -> None:
        cls = type(self.make())
        for text in (cls.name, cls.title, cls.summary):
            assert text.strip() == text != ""
            assert "\n" not in text
        assert not cls.summary.endswith(".")

    def test_parameters_are_stored_as_given_and_make_another_one(self) -> None:
        method = self.make()
        params = method.get_params()
        again = type(method)(**params)
        assert all(again.get_params()[name] is value for name, value in params.items())
        assert again.set_params(**params) is again
        assert set(method.filled_by_run()) <= set(params)

    def test_fit_returns_itself_and_leaves_vectors_and_parameters_alone(self) -> None:
        method, (X, Y) = self.make(), clouds()
        before = method.get_params()
        assert method.fit(X, Y, context=a_context()) is method
        assert method.get_params() == before
        for given, same in zip((X, Y), clouds(), strict=True):
            assert torch.equal(given, same)
        assert method.n_features_in_ == _D

    def test_directions_are_finite_and_within_the_count(self) -> None:
        method = self.fitted()
        found = method.directions_
        assert found.vectors.dtype == torch.float32
        assert found.vectors.shape == (len(found), _D)
        assert found.vectors.isfinite().all()
        assert (found.vectors.norm(dim=1) > 0).all()
        assert found.neurons.shape == found.hits.shape == (len(found),)
        assert 1 <= len(found) <= method.get_params().get("count", len(found))
        assert len(found) == 1 or not method.makes_one
        assert found.origin.method == method.name

    def test_the_single_direction_is_known(self) -> None:
        X, Y = clouds()
        single = self.fitted().directions_[:1].single
        assert torch.allclose(single.vectors[0], X.mean(0) - Y.mean(0), atol=1e-5)

    def test_the_seed_decides_what_is_drawn_and_nothing_else(self) -> None:
        one, same, other = (self.fitted(seed).directions_.vectors for seed in (0, 0, 1))
        assert torch.equal(one, same)
        changed = one.shape != other.shape or not torch.equal(one, other)
        assert changed == self.make().is_drawn

    def test_arrays_and_tensors_give_the_same(self) -> None:
        X, Y = clouds()
        arrays = self.make().fit(X.double().numpy(), Y.double().numpy(), context=a_context())
        assert torch.equal(arrays.directions_.vectors, self.fitted().directions_.vectors)

    def test_the_harmless_mean_suffices_where_it_says_so(self) -> None:
        method, (X, Y) = self.make(), clouds()
        if method.needs_mean_only:
            mean = Y.double().mean(dim=0)[None]
            found = method.fit(X, mean, context=a_context()).directions_
            assert torch.equal(found.vectors, self.fitted().directions_.vectors)

    def test_it_can_be_made_again_of_a_sample_where_it_says_so(self) -> None:
        method, (X, Y) = self.make(), clouds()
        if method.is_sampled:
            context = Context(categories=a_context().categories[::2])
            again = method.unfitted(1).fit(X[::2], Y, context=context)
            assert again.directions_.vectors.shape[1] == _D

    def test_parts_are_whole_numbers_a_prompt_and_a_map_is_a_map(self) -> None:
        method, X = self.fitted(), clouds()[0]
        parts = method.partition(X)
        if parts is not None:
            assert parts.shape == (_N,)
            assert np.issubdtype(parts.dtype, np.integer)
        if method.makes_map:
            assert isinstance(method.map_, SOM)
            assert method.map_.weights_.shape == (method.map_.n_neurons, _D)
            assert (method.map_.predict(X) == method.map_.bmus_).all()

    def test_what_is_not_fitted_says_so(self) -> None:
        method = self.make()
        assert not hasattr(method, "directions_")
        assert "call fit" in _refusal(lambda: method.directions_)

    def test_bad_vectors_are_refused_in_a_sentence(self) -> None:
        X, Y = clouds()
        bad: list[tuple[Any, Any]] = [(X * torch.nan, Y), (X, Y[:, 1:]), (X[0], Y), (X[:0], Y)]
        for one, other in bad:
            assert _refusal(lambda a=one, b=other: self.make().fit(a, b, context=a_context()))

    def test_directions_come_back_from_their_file(self, tmp_path: Path) -> None:
        found = self.fitted().directions_
        found = replace(found, origin=replace(found.origin, model="m"))
        found.save(tmp_path / "d.safetensors")
        back = DirectionSet.load(tmp_path / "d.safetensors")
        assert torch.equal(back.vectors, found.vectors)
        assert back.origin == found.origin


def clouds() -> tuple[Tensor, Tensor]:
    """Harmful (60, 12) of three categories and harmless (45, 12) vectors, always the same."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(3, _D)) + 3 * rng.normal(size=_D)
    harmful: NDArray[np.float64] = centres[np.arange(_N) % 3] + rng.normal(size=(_N, _D))
    harmless = rng.normal(size=(_M, _D))
    return torch.from_numpy(harmful).float(), torch.from_numpy(harmless).float()


def a_context() -> Context:
    """Their categories, and mean differences of layers 3 to 6, of which they are the fourth."""
    X, Y = clouds()
    single = (X.double().mean(0) - Y.double().mean(0)).float()
    differences = {layer: single + (layer - 4) for layer in range(3, 7)}
    return Context([f"c{i % 3}" for i in range(_N)], differences, layer=4)


def _refusal(call: Any) -> str:
    """The sentence of the InputError that a call must raise."""
    said = ""
    try:
        call()
    except InputError as error:
        said = str(error)
    assert said, "an InputError was expected"
    assert "\n" not in said
    return said
