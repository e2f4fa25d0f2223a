"""Prompt sets: the bundled one, files, and data sets on the hub, all with train/val/test splits."""

from somatlas.prompts.bundled import bundled_prompts, general_prompts
from somatlas.prompts.prompt_set import SPLITS, Prompt, PromptSet, Split

__all__ = ["SPLITS", "Prompt", "PromptSet", "Split", "bundled_prompts", "general_prompts"]
