"""Test cases that other packages inherit, to know that what they add keeps its contract."""

from somatlas.testing.judges import JudgeContract
from somatlas.testing.method_contract import MethodContract
from somatlas.testing.sampler_contract import SamplerContract

__all__ = ["JudgeContract", "MethodContract", "SamplerContract"]
