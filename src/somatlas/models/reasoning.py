"""Models that think aloud: what they think, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

_OPEN, _CLOSE = "<think>", "</think>"


class Marks(NamedTuple):
    """What a model writes before its reasoning and after it, blanks around them left in."""

    open: str
    close: str


# The marks of models in use, after the documentation of vLLM's and SGLang's reasoning parsers.
MARKS = (
    Marks(_OPEN, _CLOSE),  # DeepSeek-R1, Qwen3, GLM-4.5, MiniMax-M2, Nemotron, and most others
    Marks("[THINK]", "[/THINK]"),  # Magistral and Ministral
    Marks("<thought>", "</thought>"),  # EXAONE Deep
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("<longcat_think>", "</longcat_think>"),
    Marks("◁think▷", "◁/think▷"),  # Kimi
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    Marks("<|thinking|>", "<|/thinking|>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<unused94>thought", "<unused95>"),  # MedGemma
    Marks("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    Marks("Here's my thought process:", "Here's my response:"),
)
# gpt-oss's harmony: a channel's name, then its message. Only "final" is the answer.
_CHANNEL = re.compile(
    r"(?:<\|start\|>assistant[^<]*)?<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>")
_BARE_HARMONY = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\"'])")  # without its special tokens
_BARE_FINAL = re.compile(r"assistant\s*final(?=\S)")
_HARMONY_END = re.compile(r"<\|(?:end|return|call)\|>")


class Parted(NamedTuple):
    """A reply's reasoning and answer, and whether it ended by itself, where that is known."""

    reasoning: str
    answer: str
    ended: bool | None = None


def opens_reasoning(head: str, own: Marks | None = None) -> bool:
    """Whether a chat-formatted prompt ends in a block of reasoning that the reply goes on with.

    own : the template's own marks, beside those that are known.
    """
    end = head.rstrip()
    if any(end.endswith(marks.open.strip()) for marks in _with(own)):
        return True
    last = list(_CHANNEL.finditer(end))
    return bool(last) and last[-1].end() == len(end) and last[-1][1] != "final"


def part_reasoning(reply: str, *, opened: bool = False, own: Marks | None = None) -> Parted:
    """Part what stands in blocks of reasoning from the rest; several of either are put together.

    opened : the prompt ended in an open block. Without it, a closing mark that comes first tells
    as much. What was cut while it reasons is reasoning up to its end; a reply without marks is all
    answer. own : the template's own marks, beside those that are known.
    """
    reply = _in_one_form(reply, own)
    first, closed, _ = reply.partition(_CLOSE)
    if opened or (closed and _OPEN not in first):
        reply = _OPEN + reply
    answer, *blocks = reply.split(_OPEN)
    parts = [block.partition(_CLOSE) for block in blocks]
    thoughts = [thought for thought, _, _ in parts]
    return Parted(_joined(thoughts), _joined([answer, *(after for _, _, after in parts)]))


def template_marks(tokenizer: PreTrainedTokenizerBase) -> Marks | None:
    """What the chat template puts around an assistant's reasoning, or None where it puts none.

    A turn with reasoning is rendered, under the names that templates know it by.
    """
    thought, answer = "THOUGHT", "ANSWER"
    user = {"role": "user", "content": "Hello"}
    names = ("reasoning_content", "reasoning", "thinking", "thought")
    turn = {**_turn(answer), **dict.fromkeys(names, thought)}
    try:
        head = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        text = tokenizer.apply_chat_template([user, turn], tokenize=False)
        plain = tokenizer.apply_chat_template([user, _turn(answer)], tokenize=False)
    except Exception:  # templates raise what they like
        return None
    before, found, after = text.partition(thought)
    between, ended, _ = after.partition(answer)
    if not found or not ended or not between.strip():
        return None
    opening = before.removeprefix(head)
    if opening == before or not opening.strip():  # the head differs, or opens the block itself
        pairs = zip(before, plain, strict=False)
        opening = before[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]
    if not opening.strip():  # a turn without reasoning has an empty block
        last = re.search(r"(?:<[^<>]*>|\[[^\[\]]*\])\s*$", before) or re.search(r"\S+\s*$", before)
        opening = last[0] if last else ""
    return Marks(opening, between) if opening.strip() else None


def _turn(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def skipping_text(head: str, own: Marks | None) -> str:
    """What behind a chat-formatted prompt ends its reasoning before it begins, so that the next
    token is the answer's first.

    head : the prompt as formatted; where it opens no block, one is opened and closed.
    """
    marks = own or _opened_marks(head)
    if marks is None:
        return ""
    if opens_reasoning(head, own):
        return marks.close if head[-1:].isspace() or own is not None else f"\n{marks.close}"
    turn = next((head[-n:] for n in range(len(head), 4, -1) if head[-n:] in marks.close), None)
    if turn is not None:  # the answer is a turn of its own, with a mark of its own (harmony)
        return marks.close.partition(turn)[2]
    return marks.open + marks.close


def closing_text(head: str, own: Marks | None) -> str:
    """What ends reasoning that was cut short, so that the next token is the answer's first.

    head : the prompt as formatted. own : the template's own marks. Empty where neither tells how
    the model marks its reasoning.
    """
    marks = own or _opened_marks(head)
    return "" if marks is None else marks.close


def _opened_marks(head: str) -> Marks | None:
    """The known marks whose block a chat-formatted prompt ends in, blanks around them as usual."""
    found = next((m for m in MARKS if head.rstrip().endswith(m.open)), None)
    return None if found is None else Marks(f"{found.open}\n", f"\n{found.close}\n\n")


def ends_reasoning(reply: str, own: Marks | None = None) -> bool:
    """Whether a block of reasoning is closed in a reply, wherever it was opened."""
    return _CLOSE in _in_one_form(reply, own)


def reasoning_tokens(special: Collection[str], own: Marks | None) -> set[str]:
    """Those of a tokenizer's special tokens that part reasoning from the answer: a reply is parted
    before they are left out."""
    texts = [text for marks in _with(own) for text in marks]
    found = {token for token in special if any(token in text for text in texts)}
    return found | ({*_HARMONY} & {*special} if "<|channel|>" in special else set())


def _with(own: Marks | None) -> Sequence[Marks]:
    return MARKS if own is None else (own, *MARKS)


def _in_one_form(text: str, own: Marks | None) -> str:
    """The text with the marks of every model as <think> and </think>."""
    text = _from_harmony(text)
    for marks in _with(own):
        text = text.replace(marks.open.strip(), _OPEN).replace(marks.close.strip(), _CLOSE)
    return text


def _from_harmony(text: str) -> str:
    heads = list(_CHANNEL.finditer(text))
    if not heads:
        if not _BARE_HARMONY.match(text):
            return text
        return _BARE_FINAL.sub(_CLOSE, _BARE_HARMONY.sub(_OPEN, text, count=1), count=1)
    first = text[: heads[0].start()]
    pieces = [_without_end(first) + (_CLOSE if _HARMONY_END.search(first) else "")]
    for i, head in enumerate(heads):
        stop = heads[i + 1].start() if i + 1 < len(heads) else len(text)
        said = text[head.end() : stop]
        if head[1] == "final":
            pieces.append(_without_end(said))
        else:
            whole = _HARMONY_END.search(said) or i + 1 < len(heads)
            pieces.append(_OPEN + _without_end(said) + (_CLOSE if whole else ""))
    return "".join(pieces)


def _without_end(text: str) -> str:
    return _HARMONY_END.split(text)[0]


def _joined(pieces: list[str]) -> str:
    return "\n\n".join(piece.strip() for piece in pieces if piece.strip())
