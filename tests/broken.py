"""Checkpoints broken at random, and what loading them says: `python tests/broken.py [COUNT]`.

Each of the copies of a tiny checkpoint is broken in one way, drawn from a seed. It must be refused
in one sentence, or say what is odd beyond what the whole checkpoint says, or be the same model:
give the same logits, bit for bit.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import save_tiny
from somatlas import InputError
from somatlas.exports.edited_model import probe_logits
from somatlas.models.load import load_model

Tensors = dict[str, Tensor]

_FILES = ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json")
_SETTINGS = {
    "num_hidden_layers": (3, 5, 0),
    "num_attention_heads": (2, 8),
    "num_key_value_heads": (1, 4),
    "intermediate_size": (32,),
    "hidden_size": (64,),
    "vocab_size": (300,),
    "tie_word_embeddings": (False,),
    "attention_bias": (False,),
    "hidden_act": ("relu", "none"),
    "model_type": ("qwen2", "gpt2", "nothing"),
    "architectures": (["LlamaForSequenceClassification"], ["LlamaModel"]),
    "rms_norm_eps": (1.0, "small"),
    "use_cache": (False,),
}


def break_at_random(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Break a checkpoint in one way; says which, and what of it."""
    way = draw.choice((*_WAYS, "config value", "file cut"))
    if way == "config value":
        path = folder / "config.json"
        content = json.loads(path.read_text())
        key = draw.choice(sorted(_SETTINGS))
        content[key] = draw.choice(_SETTINGS[key])
        path.write_text(json.dumps(content))
        return way, f"{key} = {content[key]!r}"
    if way == "file cut":
        path = folder / draw.choice((*_FILES, "chat_template.jinja"))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * draw.uniform(0.05, 0.95))])
        return way, path.name
    tensors = load_file(folder / "model.safetensors")
    name = draw.choice(sorted(tensors))
    _WAYS[way](tensors, name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return way, name


def _cast(kind: torch.dtype) -> Callable[[Tensors, str], None]:
    def cast(tensors: Tensors, name: str) -> None:
        tensors[name] = tensors[name].to(kind)

    return cast


def _rename(tensors: Tensors, name: str) -> None:
    tensors[name.replace("weight", "kernel").replace("bias", "offset")] = tensors.pop(name)


def _transpose(tensors: Tensors, name: str) -> None:
    tensors[name] = tensors[name].T.contiguous()


def _zero(tensors: Tensors, name: str) -> None:
    tensors[name] = torch.zeros_like(tensors[name])


_WAYS: dict[str, Callable[[Tensors, str], object]] = {
    "tensor dropped": lambda tensors, name: tensors.pop(name),
    "tensor renamed": _rename,
    "tensor transposed": _transpose,
    "tensor zeroed": _zero,
    "tensor cast to float8": _cast(torch.float8_e4m3fn),
    "tensor cast to float16": _cast(torch.float16),
    "tensor cast to int8": _cast(torch.int8),
}


def outcome(folder: Path, usual: tuple[str, ...], expected: Tensor) -> tuple[str, str]:
    """refused, odd, the same or SILENT, and the sentence. usual : notes of the whole checkpoint."""
    try:
        lm = load_model(str(folder))
    except InputError as error:
        return "refused", str(error)
    kinds = {note.split(":")[0] for note in usual}
    odd = [note for note in lm.notes if note.split(":")[0] not in kinds]
    if odd:
        return "odd", odd[0]
    if torch.equal(probe_logits(lm), expected):
        return "the same", ""
    return "SILENT", ""


def trial(count: int, seed: int = 0) -> list[tuple[str, str, str, str]]:
    """Way, what, outcome and sentence of each of `count` broken checkpoints."""
    draw, rows = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        whole = save_tiny(Path(scratch) / "whole")
        lm = load_model(str(whole))
        usual, expected = lm.notes, probe_logits(lm)
        for i in range(count):
            folder = Path(scratch) / f"broken-{i}"
            shutil.copytree(whole, folder)
            rows.append((*break_at_random(folder, draw), *outcome(folder, usual, expected)))
            shutil.rmtree(folder)
    return rows


if __name__ == "__main__":
    found = trial(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
    for way, what, how, said in found:
        sys.stdout.write(f"{way:22} {what:45} {how:9} {said[:150]}\n")
    sys.stdout.write(f"{Counter(how for _, _, how, _ in found)}\n")
