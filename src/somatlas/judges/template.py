"""What a judge model reads: a text with places for the request and the reply."""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from somatlas.errors import InputError
from somatlas.files import read_text

# Names that judges' authors give to the two places.
_REQUEST, _REPLY = ("behavior", "prompt", "request"), ("generation", "reply", "response")
_PLACE = re.compile(r"\{(\w+)\}")
_LITERAL = re.compile(r"('''|\"\"\")(.*?)\1", re.DOTALL)
_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class JudgeTemplate:
    """A judge's input. source : where it came from, for the record."""

    text: str
    source: str

    @property
    def sha256(self) -> str:
        """Of the text, so that a reader can tell which template judged."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, prompt: str, reply: str) -> str:
        """The text with both put in; what they hold is never read as a place of the template."""
        values = dict.fromkeys(_REQUEST, prompt) | dict.fromkeys(_REPLY, reply)
        return _PLACE.sub(lambda place: values.get(place[1], place[0]), self.text)


def template_from_file(path: Path) -> JudgeTemplate:
    """A template file; raises InputError where it cannot be read or lacks a place."""
    text = read_text(path, "judge template")
    if not _fits(text):
        raise InputError(
            f"judge template {path} must hold {{prompt}} and {{reply}} (or {{behavior}} and "
            "{generation})"
        )
    return JudgeTemplate(text, str(path))


def template_from_card(model: str) -> JudgeTemplate:
    """The template that a model's card shows: the first text in it that has just the two places.

    It is read from the model's folder or the hub each time; none is kept in this package. Raises
    InputError where there is no card or no such text in it.
    """
    card = _card(model)
    fenced = [match[1] for match in _FENCE.finditer(card)]
    texts = [_literal(match[0]) for match in _LITERAL.finditer(card)] + fenced
    for text in texts:
        if _fits(text):
            return JudgeTemplate(text, f"card of {model}")
    raise InputError(
        f"the card of {model} shows no template with {{behavior}} and {{generation}}: write it to "
        "a file and give that as --judge-template"
    )


def _fits(text: str) -> bool:
    """Whether a text has a place for the request, one for the reply, and no other."""
    places = set(_PLACE.findall(text))
    request, reply = places & set(_REQUEST), places & set(_REPLY)
    return len(request) == len(reply) == 1 and len(places) == 2


def _literal(source: str) -> str:
    """A Python string literal's value; its bare text where it is none."""
    try:
        return str(ast.literal_eval(source))
    except (ValueError, SyntaxError):
        return source[3:-3]


def _card(model: str) -> str:
    from huggingface_hub import hf_hub_download  # here: kinds of judges are listed without it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = Path(model)
    try:
        path = folder if folder.is_dir() else None
        path = path / "README.md" if path else Path(hf_hub_download(model, "README.md"))
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"the card of judge {model} cannot be read ({first}): give --judge-template FILE"
        ) from None
