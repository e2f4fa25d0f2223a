"""Do all prompts of a run go into its model as they are meant? Tried once it is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from somatlas.errors import InputError
from somatlas.models.chat import added_controls, names_control_token
from somatlas.models.language_model import LanguageModel

_NEUTRAL = "Name three rivers of Europe, please."


def check_prompts(lm: LanguageModel, prompts: Sequence[str], room: int) -> list[str]:
    """What a reader should know of the prompts in this model, a sentence each.

    room : tokens that are generated behind the longest. Raises InputError for a prompt with a token
    that the model has no row for, that is longer than its table of positions, or in which the name
    of a control token becomes that token whatever is done.
    """
    rows = [lm.token_ids(prompt) for prompt in prompts]
    lm.limits.check(lm.name, rows, room)
    notes = []
    if lm.chat is not None:
        _check_controls(lm, prompts, rows, lm.chat.controls)
        named = [prompt for prompt in prompts if names_control_token(prompt, lm.chat)]
        if named:
            notes.append(
                f"{len(named)} prompts name a control token of {lm.name}, such as "
                f"{named[0][:60]!r}: it is read as the text that it is"
            )
    if long := lm.limits.too_long(rows, room):
        notes.append(
            f"{long} prompts are, with their replies, longer than the {lm.limits.positions} "
            f"positions that {lm.name} was made for: what it says there tells little"
        )
    return notes


def _check_controls(
    lm: LanguageModel,
    prompts: Sequence[str],
    rows: Sequence[Sequence[int]],
    controls: Sequence[str],
) -> None:
    ids = {int(i) for i in lm.tokenizer.convert_tokens_to_ids(list(controls)) if i is not None}
    usual = lm.token_ids(_NEUTRAL)
    for prompt, row in zip(prompts, rows, strict=True):
        if added := added_controls(row, usual, ids):
            token = lm.tokenizer.convert_ids_to_tokens(added[0])
            raise InputError(
                f"the prompt {prompt[:60]!r} holds {token!r}, which {lm.name} reads as a control "
                "token however it is written: change that prompt"
            )
