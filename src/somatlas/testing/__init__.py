"""Test cases that other packages inherit, to know that what they add keeps its contract."""

from somatlas.testing.judges import JudgeContract

__all__ = ["JudgeContract"]
