"""What the benchmarks share: time, the paper's protocol, and the file of results."""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from transformers import GenerationConfig

from somatlas import Projection
from somatlas.interventions import edited_weights
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.output_maps import output_maps, untie_head

MODEL = "smollm2-hardened"
RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of the table: how many times as fast as a baseline of the same run."""

    what: str
    against: str
    ours: str
    baseline: str
    ratio: float
    target: float


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def write(name: str, rows: Sequence[Row]) -> None:
    """Write results/NAME.json and print the rows."""
    RESULTS.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}"
    content = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    for row in rows:
        print(
            f"{row.what}, against {row.against}: {row.ours} / {row.baseline}: "
            f"{row.ratio:.2f} (target {row.target})",
            flush=True,
        )


@torch.no_grad()
def paper_representations(lm: LanguageModel, prompts: Sequence[str]) -> torch.Tensor:
    """One prompt at a time, with the output head and all hidden states, as the paper's code."""
    rows = []
    for prompt in prompts:
        output = lm.model(torch.tensor([lm.token_ids(prompt)]), output_hidden_states=True)
        rows.append(torch.stack([state[0, -1] for state in output.hidden_states[1:]]))
    return torch.stack(rows)


@torch.no_grad()
def plain_replies(
    lm: LanguageModel, prompts: Sequence[str], tokens: int, batch_size: int
) -> list[str]:
    """transformers' generate on left-padded batches in the prompts' order."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=lm.model.generation_config.eos_token_id,
        pad_token_id=lm.pad_token_id,
    )
    replies: list[str] = []
    for start in range(0, len(prompts), batch_size):
        texts = [
            lm.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts[start : start + batch_size]
        ]
        batch = lm.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = lm.model.generate(**batch, generation_config=config)
        new = output[:, batch["input_ids"].shape[1] :]
        replies += lm.tokenizer.batch_decode(new, skip_special_tokens=True)
    return replies


def with_edited_weights(lm: LanguageModel, projection: Projection, work: Callable[[], T]) -> T:
    """Do work on the model with its matrices edited, and undo the edit."""
    with edited_weights(output_maps(lm.model, lm.structure), projection):
        return work()


def loaded_anew() -> LanguageModel:
    """The model as the paper's protocol has it: from disk, for each trial or layer."""
    gc.collect()
    lm = load_model(MODEL)
    untie_head(lm.model)
    return lm
