"""Test cases that other packages inherit, to know that what they add keeps its contract."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somatlas.testing.attack_contract import AttackContract
    from somatlas.testing.judges import JudgeContract
    from somatlas.testing.method_contract import MethodContract
    from somatlas.testing.sampler_contract import SamplerContract

_PLACES = {
    "AttackContract": "attack_contract",
    "JudgeContract": "judges",
    "MethodContract": "method_contract",
    "SamplerContract": "sampler_contract",
}

__all__ = ["AttackContract", "JudgeContract", "MethodContract", "SamplerContract"]


def __getattr__(name: str) -> Any:  # a judge's tests need no library of arrays
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
