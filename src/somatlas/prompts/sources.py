"""From what the user names (bundled, files, hub data sets) to a PromptSet with splits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from somatlas.config import Config
from somatlas.errors import InputError
from somatlas.prompts.bundled import bundled_prompts
from somatlas.prompts.files import read_prompts
from somatlas.prompts.hub import hub_prompts, paper_prompts
from somatlas.prompts.sets import SPLITS, Prompt, PromptSet, Split

HUB_PREFIX = "hub:"
SPLIT_SHARES: Mapping[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
MIN_FOR_SPLITS = 10


def configured_prompts(config: Config) -> PromptSet:
    """The prompt set a configuration names.

    A side given by --positive, --negative or --borderline replaces that side of the named set and
    is split 60/20/20 in an order the seed decides. Raises InputError for what cannot be read, and
    where only one of positive and negative is given: they must contrast.
    """
    if (config.positive is None) != (config.negative is None):
        given, lacking = ("positive", "negative") if config.positive else ("negative", "positive")
        raise InputError(
            f"--{given} is given without --{lacking}: the two sides must contrast in one thing, "
            "so name both"
        )
    whole = bundled_prompts() if config.prompts == "bundled" else paper_prompts()
    if config.positive is not None and config.negative is not None:
        whole = PromptSet(
            positive=_side(config.positive, config),
            negative=_side(config.negative, config),
            borderline={},
        )
        both = [{p.text for s in SPLITS for p in d[s]} for d in (whole.positive, whole.negative)]
        if shared := both[0] & both[1]:
            raise InputError(
                f"{len(shared)} prompts stand in both --positive and --negative "
                f"(one is {min(shared)!r}): each belongs to one side"
            )
    if config.borderline is not None:
        whole = PromptSet(whole.positive, whole.negative, _side(config.borderline, config))
    return whole


def split_prompts(prompts: Sequence[Prompt], seed: int) -> dict[Split, list[Prompt]]:
    """Train, val and test, shuffled by the seed; equal texts are taken once."""
    unique = list({p.text: p for p in prompts}.values())
    random.Random(seed).shuffle(unique)
    train = round(SPLIT_SHARES["train"] * len(unique))
    val = round((SPLIT_SHARES["train"] + SPLIT_SHARES["val"]) * len(unique))
    return {"train": unique[:train], "val": unique[train:val], "test": unique[val:]}


def _side(source: str, config: Config) -> dict[Split, list[Prompt]]:
    if source.startswith(HUB_PREFIX):
        prompts = hub_prompts(source.removeprefix(HUB_PREFIX), config.column)
    else:
        prompts = read_prompts(Path(source), config.column)
    splits = split_prompts(prompts, config.seed)
    if sum(map(len, splits.values())) < MIN_FOR_SPLITS:
        raise InputError(
            f"{source} holds fewer than {MIN_FOR_SPLITS} different prompts: too few to split into "
            "train, val and test"
        )
    return splits
