"""How a prompt is put to a model: its chat template, tried before it is trusted.

What is put in must come out. At load, prompts that differ are rendered, with and without a system
prompt: a template that loses one is refused, or given its content in the form that it reads. A
template's clock is stopped at a date of the run, and what a prompt holds is text: the name of a
control token in it does not become that token.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from somatlas.arguments import check_unicode
from somatlas.errors import InputError
from somatlas.files import read_text
from somatlas.models.names import DEFAULT_DATE

# The format of Qwen's first chat models, whose tokenizers come without a template.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What templates call the switch for reasoning: Qwen3 and most others; DeepSeek V3.1 and Granite.
_SWITCHES = ("enable_thinking", "thinking")
# Every two of them differ at one end alone: what drops either end gives two that are equal.
_PROBES = (
    "Name three rivers of Europe, please.",
    "Name three rivers of Europe, thanks!",
    "Find three rivers of Europe, please.",
)
_SYSTEM_PROBES = ("Be kind and brief.", "Be kind and warm!", "Stay kind and brief.")
_CLOCK = re.compile(
    r"strftime_now\(\s*(?:format\s*=\s*)?(?P<mark>['\"])(?P<form>.*?)(?P=mark)\s*\)"
)
_CLOCK_ASKED_FOR = re.compile(r"strftime_now\s+is\s+(?:not\s+)?defined|\{#.*?#\}", re.DOTALL)
_RENDERINGS = 16  # that must be equal: a template that tosses one coin is missed once in 30,000
_MARKED = re.compile(r"[<\[({|].*\S.*[>\])}|]", re.DOTALL)  # how control tokens are written
_BREAK = 0xF0000  # the first of the characters that Unicode leaves to private use


@dataclass(frozen=True)
class ChatFormat:
    """A model's chat template, and how it takes what it is given.

    template : its Jinja source, with a date in place of a clock. parts : the roles whose content
    it reads as a list of parts instead of a text. switch : its variable that turns reasoning on
    and off, or None. controls : the tokens that only the template may write, the longest first.
    dated : it prints the date.
    """

    template: str
    parts: tuple[str, ...] = ()
    switch: str | None = None
    controls: tuple[str, ...] = ()
    dated: bool = False

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        system: str | None = None,
        thinking: bool | None = None,
    ) -> str:
        """The chat-formatted prompt, generation prompt included; raises what the template does."""
        messages = [self._message("user", prompt)]
        if system is not None:
            messages.insert(0, self._message("system", system))
        name = self.switch or _SWITCHES[0]
        switch = {} if thinking is None else {name: thinking}
        text: str = tokenizer.apply_chat_template(
            messages,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
            **switch,
        )
        return text

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": _parts(text) if role in self.parts else text}


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def chat_token_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    system: str | None = None,
    thinking: bool | None = None,
    chat: ChatFormat | None = None,
) -> list[int]:
    """The chat-formatted prompt, generation prompt included, as token ids.

    thinking : the template's switch of that name, left alone where None. chat : how the model
    takes a prompt (default: the tokenizer's own template, as it is). The template writes a BOS
    where the model wants one, so the tokenizer adds none. A control token that prompt or system
    prompt names is broken, so that it is read as the text that it is. Raises InputError for what is
    no text in UTF-8.
    """
    check_unicode("a prompt", prompt)
    check_unicode("the system prompt", system or "")
    chat = chat or _plain_format(tokenizer, _own_template(tokenizer))
    mark = _unused_character(prompt + (system or "") + chat.template)
    broken = _broken(prompt, chat.controls, mark)
    broken_system = None if system is None else _broken(system, chat.controls, mark)
    first, *rest = chat.render(tokenizer, broken, broken_system, thinking).split(mark)
    ids = list(tokenizer(first, add_special_tokens=False)["input_ids"])
    for piece in rest:
        ids += _inner_ids(tokenizer, piece)
    return ids


def names_control_token(text: str, chat: ChatFormat) -> bool:
    """Whether a text holds what would be a control token if the template wrote it."""
    return any(token in text for token in chat.controls)


def _unused_character(text: str) -> str:
    return next(c for c in map(chr, range(_BREAK, _BREAK + len(text) + 1)) if c not in text)


def _broken(text: str, controls: Sequence[str], mark: str) -> str:
    """The text with the mark inside each control token, until none is left whole."""
    for token in controls:
        while token in text:
            text = text.replace(token, token[0] + mark + token[1:])
    return text


def _inner_ids(tokenizer: PreTrainedTokenizerBase, piece: str) -> list[int]:
    """Token ids of a text that follows another: SentencePiece would begin it with a space."""
    line: list[int] = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
    ids: list[int] = list(tokenizer("\n" + piece, add_special_tokens=False)["input_ids"])
    if line and ids[: len(line)] == line:
        return ids[len(line) :]
    return list(tokenizer(piece, add_special_tokens=False)["input_ids"])


@lru_cache(maxsize=8)
def _plain_format(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatFormat:
    return ChatFormat(template, controls=_control_tokens(tokenizer, template))


def _control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """Added tokens that are special, stand in the template, or are written as marks are.

    Runs of spaces and plain words that some tokenizers add are text like any other.
    """
    special = set(tokenizer.all_special_tokens)
    added = tokenizer.added_tokens_decoder.values()
    special |= {token.content for token in added if token.special}
    found = {
        text
        for text in (*special, *tokenizer.get_added_vocab())
        if len(text) > 1
        and not text.isspace()
        and (text in special or text in template or _MARKED.fullmatch(text))
    }
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def find_format(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    source: str | None = None,
    date: str = DEFAULT_DATE,
    system: str | None = None,
    thinking: bool | None = None,
) -> ChatFormat:
    """How a model takes a prompt, found by rendering.

    name : the model's, for messages. source : "chatml", the name of one of the tokenizer's own
    templates, a Jinja template or a file with one; by default the tokenizer's own. date :
    YYYY-MM-DD, what a template that asks for the time is told.

    Raises InputError for a template that is missing, broken or random, that drops the prompt or
    the system prompt, or that has no switch where one is set.
    """
    running = given_template(tokenizer, name, source)
    text = _stopped(running, date, name)
    chat = ChatFormat(text, controls=_control_tokens(tokenizer, text), dated=text != running)
    chat = _with_form(tokenizer, chat, name)
    if len({chat.render(tokenizer, _PROBES[0]) for _ in range(_RENDERINGS)}) > 1:
        raise InputError(
            f"the chat template of {name} renders one prompt in several ways: give one that does "
            "not by --chat-template"
        )
    chat = _with_switch(tokenizer, chat)
    if thinking is not None and chat.switch is None:
        raise InputError(
            f"{name} has no switch for thinking in its chat template: leave --thinking"
        )
    if system is not None:
        check_system(tokenizer, chat, name, system)
    return chat


def check_system(
    tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, name: str, system: str
) -> None:
    """Raise InputError where the template refuses a system prompt, drops it, or drops the prompt
    beside it. An empty one may change nothing: it takes a template's own away."""

    def rendered(prompt: str, system: str | None) -> str:
        try:
            return chat.render(tokenizer, prompt, system)
        except Exception as error:  # templates raise what they like
            raise InputError(
                f"the chat template of {name} takes no system prompt ({_reason(error)}): leave it, "
                "or give a template that does by --chat-template"
            ) from None

    if not _carried(lambda prompt: rendered(prompt, system), _PROBES):
        raise InputError(
            f"the chat template of {name} drops the prompt where there is a system prompt: give "
            "another by --chat-template"
        )
    if not system.strip():
        return
    others = (system, f"{system} x", f"x {system}")
    kept = _carried(lambda one: rendered(_PROBES[0], one), others)
    if not kept or rendered(_PROBES[0], system) == rendered(_PROBES[0], None):
        raise InputError(
            f"the chat template of {name} drops the system prompt {_shown(system)}: leave it, or "
            "give a template that keeps it by --chat-template"
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _carried(render: Callable[[str], str], texts: Sequence[str]) -> bool:
    """Whether each text stands in what is made of it, or what is made of them differs at least."""
    made = [render(text) for text in texts]
    pairs = list(zip(texts, made, strict=True))
    if any(str(_parts(text)[0]) in one for text, one in pairs):
        return False  # a part, as Python writes it
    kept = [text.strip() in one for text, one in pairs]
    return all(kept) or (not any(kept) and len(set(made)) == len(made))


def _with_form(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat, name: str) -> ChatFormat:
    """The format with the form of content in which a prompt, and a system prompt, is kept."""
    failures: list[Exception] = []
    for form in (chat, replace(chat, parts=("user",))):
        try:
            if _carried(partial(form.render, tokenizer), _PROBES):
                return _with_system_form(tokenizer, form)
        except Exception as error:  # templates raise what they like
            failures.append(error)
    if len(failures) == 2:
        raise InputError(
            f"the chat template of {name} cannot be used ({_reason(failures[0])}): give another by "
            "--chat-template"
        )
    raise InputError(
        f"the chat template of {name} drops the prompt, or a part of it: give one that keeps it by "
        "--chat-template"
    )


def _with_system_form(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> ChatFormat:
    for form in (chat, replace(chat, parts=(*chat.parts, "system"))):
        try:
            if _carried(partial(form.render, tokenizer, _PROBES[0]), _SYSTEM_PROBES):
                return form
        except Exception:  # templates raise what they like
            continue
    return chat  # it takes none: said where one is given


def _with_switch(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> ChatFormat:
    """The format with the first variable that makes a difference to what is rendered."""
    for name in _SWITCHES:
        form = replace(chat, switch=name)
        try:
            on, off = (form.render(tokenizer, _PROBES[0], thinking=t) for t in (True, False))
        except Exception:  # templates raise what they like
            continue
        if on != off:
            return form
    return chat


def _stopped(template: str, date: str, name: str) -> str:
    """The template with the date, at midnight, where it asks for the time."""
    moment = datetime.fromisoformat(date)

    def literal(call: re.Match[str]) -> str:
        text = moment.strftime(call["form"]).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{text}'"

    stopped = _CLOCK.sub(literal, template)
    if "strftime_now" in _CLOCK_ASKED_FOR.sub("", stopped):
        raise InputError(
            f"the chat template of {name} asks for the time in a way that cannot be stopped: write "
            "a date in its place and give that by --chat-template"
        )
    return stopped


def given_template(tokenizer: PreTrainedTokenizerBase, name: str, source: str | None) -> str:
    """The source of the template that `find_format` reads, its clock going."""
    if source == "chatml":
        return CHATML
    own = tokenizer.chat_template
    if source is not None:
        if isinstance(own, dict) and source in own:
            return str(own[source])
        if "{{" in source or "{%" in source:
            return source
        path = Path(source)
        template = read_text(path, "chat template")
        if not template.strip():
            raise InputError(f"chat template {path} is empty")
        return template
    if isinstance(own, dict) and own and "default" not in own:
        raise InputError(
            f"{name} has the chat templates {', '.join(sorted(own))} and none of them is the "
            "default: name one by --chat-template"
        )
    if not own:
        raise InputError(
            f"{name} has no chat template: somatlas studies chat models only; give the one it was "
            "trained with by --chat-template"
        )
    return _own_template(tokenizer)


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    own = tokenizer.chat_template
    return str(own["default"] if isinstance(own, dict) else own).removeprefix("\ufeff")


def _reason(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"line {line}: {text}" if line else text


def added_controls(ids: Sequence[int], reference: Sequence[int], controls: set[int]) -> list[int]:
    """Control tokens that are in ids more often than in the reference."""
    count, usual = Counter(i for i in ids if i in controls), Counter(reference)
    return [token for token, n in count.items() if n > usual[token]]
