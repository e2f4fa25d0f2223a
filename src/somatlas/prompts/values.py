"""A cell of a prompt file as the text that it means: plain text, messages, turns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from somatlas.files import from_json

# What the two speakers are called, in messages of OpenAI's shape and of ShareGPT's.
_ASKING = ("user", "human", "prompter")
_ANSWERING = ("assistant", "gpt", "model", "chatbot", "bot")
_ROLES, _CONTENTS = ("role", "from"), ("content", "value")


class UnreadableError(ValueError):
    """A cell whose meaning as one request is not plain: the message says why."""


def request_of(value: Any) -> str:
    """The one request of a cell: a text, a message, messages with one turn of the user, or a list
    of one text; empty for None. What the model answered in the messages is left out.

    Raises UnreadableError for several turns, a system prompt, or what is no text: true, false, NaN
    and infinities are none, other numbers are.
    """
    return _said_by(_unpacked(value), _ASKING, "the user")


def reply_of(value: Any) -> str:
    """The one reply of a cell, in the same shapes."""
    return _said_by(_unpacked(value), _ANSWERING, "the model")


def is_missing(value: Any) -> bool:
    """Whether a table has nothing in a cell: None, or the NaN that pandas puts there."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def label_of(value: Any) -> str:
    """A cell as a name, such as a category; empty where it is missing."""
    return "" if is_missing(value) else str(value).strip()


def _unpacked(value: Any) -> Any:
    """Messages that a table holds as JSON text; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith(("[{", "{")):
        try:
            content = from_json(value)
        except json.JSONDecodeError:
            return value
        rows = content if isinstance(content, list) else [content]
        return content if rows and all(map(_is_message, rows)) else value
    return value


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(role in value for role in _ROLES)
        and any(content in value for content in _CONTENTS)
    )


def _said_by(value: Any, speakers: Sequence[str], who: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise UnreadableError(f"holds {value!r}, which is no text")
    if isinstance(value, int | float):
        return str(value)
    if _is_message(value):
        value = [value]
    if hasattr(value, "tolist"):  # an array of a data set
        value = value.tolist()
    if not isinstance(value, list | tuple) or not value:
        raise UnreadableError(f"holds {_kind(value)}, not a text")
    if all(isinstance(turn, str) for turn in value):
        if len(value) > 1:
            raise UnreadableError(f"holds {len(value)} turns, and one is asked")
        return str(value[0])
    if not all(map(_is_message, value)):
        raise UnreadableError(f"holds {_kind(value)}, not a text or messages")
    turns = [(_of(one, _ROLES), _of(one, _CONTENTS)) for one in value]
    if who == "the user" and any(role in ("system", "developer") for role, _ in turns):
        raise UnreadableError(
            "holds a system prompt: give it by --system, and the request alone here"
        )
    said = [content for role, content in turns if role in speakers]
    if len(said) != 1:
        raise UnreadableError(f"holds {len(said)} turns of {who}, and one is asked")
    return _content(said[0])


def _of(message: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next(message[name] for name in names if name in message)


def _content(value: Any) -> str:
    """A message's content: a text, or parts of type text."""
    if isinstance(value, list | tuple):
        if not all(
            isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
        ):
            raise UnreadableError("holds a message with something else than text")
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise UnreadableError(f"holds a message with {_kind(value)}, not a text")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"
