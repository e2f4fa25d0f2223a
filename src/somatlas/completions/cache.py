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
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from somatlas.ablation import Projection
from somatlas.completions.kept import KeptReplies
from somatlas.evaluation.evaluation import read_jsonl
from somatlas.files import append_row, appended_rows, write_jsonl
from somatlas.models.digest import weights_digest
from somatlas.models.language_model import LanguageModel
from somatlas.models.reasoning import Parted
from somatlas.models.reply import Reply


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
        content = json.dumps([key, list(prompts)], sort_keys=True)
        path = self.folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.jsonl"
        if path.exists():
            return [Reply(row["reply"], ended=row["ended"]) for row in read_jsonl(path)]
        kept = KeptReplies(path.with_suffix(".growing.jsonl"))
        replies = make(kept)
        write_jsonl(path, ({"reply": reply, "ended": reply.ended} for reply in replies))
        kept.drop()
        return replies


class ServedReplies:
    """What a server has replied, kept in a file as it comes; for several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = {
            row["key"]: Parted(row["reasoning"], row["reply"]) for row in appended_rows(path)
        }
        self._lock = Lock()

    def get(self, key: Sequence[Any], ask: Callable[[], Parted | None]) -> Parted | None:
        """What is kept under the key, or else what `ask` gives, kept unless it is None.

        key : plain JSON values: everything that decides the reply.
        """
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if digest in self._known:
            return self._known[digest]
        said = ask()
        if said is not None:
            with self._lock:
                row = {"key": digest, "reasoning": said.reasoning, "reply": said.answer}
                append_row(self.path, row)
        return said


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
