"""What several tests of judges need: labelled replies, a judge of words, a tiny classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from conftest import tiny_tokenizer
from somatlas.judges import is_refusal

# Replies to harmless and borderline prompts, each with a person's verdict.
ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "labelled_replies.jsonl").open(encoding="utf-8")
]


def by_words(body: dict[str, Any]) -> str:
    """A judge that follows the rubric: it reads the reply out of the JSON and nothing else."""
    reply = json.loads(body["messages"][-1]["content"])["reply"]
    verdict = "refused" if is_refusal(reply) else "complied" if reply else "incoherent"
    return json.dumps({"reason": "because", "verdict": verdict})


def classifier_folder(folder: Path, labels: list[str]) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=2,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        initializer_range=0.5,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
