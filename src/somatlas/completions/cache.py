"""Test replies, each made once.

    runs/<model>/.replies/<key>.jsonl              by model, edit, prompts and settings
    runs/<model>/.replies/<key>.growing.jsonl      the same until all are there (kept_replies)
    RUN/completions/<condition>.served.jsonl       a server's, until the condition has all of them

Runs of one model share what it says: a comparison of methods makes the base model's replies once,
and a new judge none. A server's replies serve no other run, for its weights may have changed under
the same name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.completions.kept import KeptReplies, reply_row, row_reply
from somatlas.files import JsonlCache, read_jsonl, write_jsonl
from somatlas.models.digest import weights_digest
from somatlas.models.language_model import LanguageModel
from somatlas.models.reasoning import Parted
from somatlas.models.reply import Reply
from somatlas.records import row_reader


class ReplyStore:
    """The replies kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self,
        key: dict[str, Any],
        prompts: Sequence[str],
        make: Callable[[KeptReplies], list[Reply]],
    ) -> list[Reply]:
        """What is kept under the key for the prompts, or else what `make` gives, kept from now on.

        key : plain JSON values: everything but the prompts that decides the replies. make : is
        given where it keeps replies as they come, and finds those of an interrupted call.
        """
        replies = self.find(key, prompts)
        if replies is None:
            kept = self.growing(key, prompts)
            replies = make(kept)
            self.put(key, prompts, replies)
            kept.drop()
        return replies

    def find(self, key: dict[str, Any], prompts: Sequence[str]) -> list[Reply] | None:
        """What is kept under the key for the prompts; None where that is not whole or damaged, so
        that it is made again."""
        path = self._path(key, prompts)
        if not path.exists():
            return None
        try:
            found = [row_reply(row) for row in read_jsonl(path)]
        except (KeyError, TypeError, ValueError):  # an InputError is a ValueError
            return None
        return found if len(found) == len(prompts) else None

    def growing(self, key: dict[str, Any], prompts: Sequence[str]) -> KeptReplies:
        """Where some of them are kept until all are there."""
        return KeptReplies(self._path(key, prompts).with_suffix(".growing.jsonl"))

    def put(self, key: dict[str, Any], prompts: Sequence[str], replies: Sequence[Reply]) -> None:
        """Keep all of them."""
        write_jsonl(self._path(key, prompts), map(reply_row, replies))

    def _path(self, key: dict[str, Any], prompts: Sequence[str]) -> Path:
        content = json.dumps([key, list(prompts)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.jsonl"


class ServedReplies:
    """What a server has replied, kept in a file as it comes; for several threads."""

    def __init__(self, path: Path) -> None:
        self._cache: JsonlCache[str, Parted] = JsonlCache(path, _served_row, _served_reply)

    def get(self, key: Sequence[Any], ask: Callable[[], Parted | None]) -> Parted | None:
        """What is kept under the key, or else what `ask` gives, kept unless it is None.

        key : plain JSON values: everything that decides the reply.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        said = self._cache.get(digest)
        if said is None:
            said = ask()
            if said is not None:
                self._cache.put({digest: said})
        return said


def _served_row(said: Parted) -> dict[str, Any]:
    return {"reasoning": said.reasoning, "reply": said.answer}


@dataclass(frozen=True)
class _ServedRow:
    reasoning: str
    reply: str


_read_served = row_reader(_ServedRow)


def _served_reply(row: Mapping[str, Any]) -> Parted:
    found = _read_served({name: row[name] for name in ("reasoning", "reply")})
    return Parted(found.reasoning, found.reply)


def model_key(
    lm: LanguageModel, projection: Projection | None, prompts: Sequence[str]
) -> dict[str, Any]:
    """What decides a model's replies to the prompts under an edit, whatever it is called.

    The prompts count as the token ids that the template makes of them (it may write a date), the
    tokenizer as a whole, for it makes the replies' text.
    """
    edit = None
    if projection is not None:
        edit = _digest([projection.A, projection.B])
    return {
        "weights": weights_digest(lm.model),
        "dtype": str(lm.model.dtype),
        "tokenizer": _tokenizer_digest(lm),
        "prompts": _text_digest([lm.token_ids(prompt) for prompt in prompts]),
        "end": lm.model.generation_config.eos_token_id,
        "pad": lm.pad_token_id,
        "marks": lm.marks,
        "site": lm.site,
        "edit_head": lm.edit_head,
        "edit": edit,
    }


def _tokenizer_digest(lm: LanguageModel) -> str:
    tokenizer = lm.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    added = {str(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    whole = tokenizer.get_vocab() if backend is None else backend.to_str()
    return _text_digest([whole, added, tokenizer.all_special_ids])


def _text_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Sequence[Tensor]) -> str:
    joined = torch.cat([t.detach().cpu().double().reshape(-1) for t in tensors])
    return hashlib.sha256(joined.numpy().tobytes()).hexdigest()
