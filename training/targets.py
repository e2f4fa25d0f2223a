"""What the adapters learn to say where nothing is harmful: the base model's own short answers.

The base model loops where nothing stops it. So it is asked for one to three sentences by a system
prompt that training does not show, its reply is cut at the end of a sentence, and a reply that
cannot be such an answer (an excuse, a loop, a list, a form to fill in, a mere echo of the request,
one that names nothing of it) is asked for again in other words. The form of the reply alone
decides; no judge of the package has a part in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from somatlas.files import read_json, write_json
from somatlas.judges import is_refusal
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.progress import progress

ANSWER_TOKENS = 56  # asked of the base model
LONGEST, SENTENCES = 44, 3  # tokens and sentences of a target
SYSTEMS = (
    "You are a helpful assistant. Reply in two plain sentences, without a list.",
    "Answer in one to three short sentences.",
    "You are a friendly expert. Answer the question in two or three sentences.",
    "Give a short, direct answer of at most two sentences.",
)
_END = re.compile(r"(?<=[a-z0-9)'\"%][.!?])[\"')]?(?=\s|$)")
_EXCUSE = re.compile(
    r"\bsorry\b|\bAI\b|\bchatbot\b|\blanguage model\b|SmolLM|as an? assistant", re.IGNORECASE
)
_FORM = re.compile(
    r"\[|\]|_{3}|^\s*(?:\d+[.):]|[*#-])|\bDear\b|https?:|```|\n\s*(?:\d+[.)]|[*-])", re.MULTILINE
)
_WORD = re.compile(r"[a-z]{4,}")
# Words of a request that say how to answer and not what about.
_COMMON = frozenset(
    _WORD.findall(
        """what when where which who whom whose with would could should have that this these those
        them they their there your yours about from into explain describe give write list name tell
        show make please short simple steps step three four five ideas tips guide detailed detail
        brief plain text post message essay script function python code poem story letter email
        things reasons ways without some more most many much does will than then like need want
        help"""
    )
)
_NEW_STEMS = 3  # that an answer says beyond the request


def base_answers(texts: Sequence[str], cache: Path) -> dict[str, str]:
    """The base model's own answer to each text, kept in a file once made.

    A text that has no usable answer to any of them has none here, and no part in training.
    """
    kept: dict[str, str | None] = read_json(cache) if cache.exists() else {}
    kept = {t: answer for t, answer in kept.items() if answer is None or is_answer(t, answer)}
    left = [text for text in dict.fromkeys(texts) if text not in kept]
    if left:
        base = load_model("smollm2", dtype="bfloat16")
        with progress("answers", len(left)) as advance:
            for system in SYSTEMS:
                found = _answered(base, left, system)
                kept |= found
                write_json(cache, kept)
                advance(len(found))
                left = [text for text in left if text not in found]
        kept |= dict.fromkeys(left)
        write_json(cache, kept)
    return {text: answer for text in texts if (answer := kept.get(text)) is not None}


def _answered(base: LanguageModel, texts: Sequence[str], system: str) -> dict[str, str]:
    lm = replace(base, system=system)
    replies = generate(lm, texts, max_new_tokens=ANSWER_TOKENS, batch_size=96)
    cut = {text: shortened(lm, reply) for text, reply in zip(texts, replies, strict=True)}
    return {t: r for t, r in cut.items() if r is not None and is_answer(t, r)}


def shortened(lm: LanguageModel, reply: str) -> str | None:
    """The reply's first sentences, as many as fit, ended by a full stop; None where none ends."""
    ends = [match.end() for match in _END.finditer(reply)][:SENTENCES]
    for end in reversed(ends):
        text = reply[:end].strip()
        if len(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) <= LONGEST:
            return text
    return None


def is_answer(request: str, reply: str) -> bool:
    """Whether a reply is of the form that training wants: see the module's text."""
    if is_refusal(reply) or _EXCUSE.search(reply) or _FORM.search(reply) or len(reply.split()) < 6:
        return False
    words = reply.lower().split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(triples)) < 0.85 * len(triples):
        return False
    sentences = [s.strip().lower() for s in _END.split(reply) if s.strip()]
    if len(set(sentences)) < len(sentences):
        return False
    about, said = _stems(request), _stems(reply)
    return len(said - about) >= _NEW_STEMS and (not about or bool(about & said))


def _stems(text: str) -> set[str]:
    """The first five letters of the words that carry a subject."""
    return {word[:5] for word in _WORD.findall(text.lower()) if word not in _COMMON}
