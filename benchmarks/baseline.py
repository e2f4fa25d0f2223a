"""The baselines' model: transformers alone, used as the paper's scripts use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from common import MODEL
from somatlas import Projection
from somatlas.models.embedded import load_embedded


@dataclass(frozen=True)
class Baseline:
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        """From a checkpoint, in float32."""
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model.eval().requires_grad_(False), tokenizer)

    def chat(self, prompt: str, system: str | None = None) -> str:
        """The prompt in the chat template."""
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": prompt})
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        return text

    def _batch(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(
            list(texts), return_tensors="pt", padding=True, add_special_tokens=False
        )

    @torch.no_grad()
    def representations(self, prompts: Sequence[str], system: str) -> torch.Tensor:
        """One prompt at a time, with the output head and all hidden states."""
        rows = []
        for prompt in prompts:
            batch = self._batch([self.chat(prompt, system)])
            states = self.model(**batch, output_hidden_states=True).hidden_states
            rows.append(torch.stack([state[0, -1] for state in states[1:]]))
        return torch.stack(rows)

    @torch.no_grad()
    def log_probabilities(self, prompts: Sequence[str]) -> torch.Tensor:
        """Of the first reply token, one prompt at a time."""
        rows = [self.model(**self._batch([self.chat(p)])).logits[0, -1] for p in prompts]
        return torch.stack(rows).log_softmax(dim=-1)

    def replies(self, prompts: Sequence[str], tokens: int, batch_size: int) -> list[str]:
        """generate on left-padded batches in the prompts' order."""
        return self.continued([self.chat(prompt) for prompt in prompts], tokens, batch_size)

    @torch.no_grad()
    def continued(self, texts: Sequence[str], tokens: int, batch_size: int) -> list[str]:
        """The same on texts as they are."""
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        replies: list[str] = []
        for start in range(0, len(texts), batch_size):
            batch = self._batch(texts[start : start + batch_size])
            output = self.model.generate(**batch, generation_config=config)
            new = output[:, batch["input_ids"].shape[1] :]
            replies += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return replies

    @torch.no_grad()
    def edit(self, projection: Projection) -> Callable[[], None]:
        """Project what the matrices write, the head apart; returns what undoes it."""
        model = self.model
        model.lm_head.weight = torch.nn.Parameter(
            model.lm_head.weight.detach().clone(), requires_grad=False
        )
        embedding = model.model.embed_tokens.weight
        before = [(embedding, embedding.clone())]
        embedding.copy_(projection.apply(embedding))
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                before.append((matrix, matrix.clone()))
                matrix.copy_(projection.apply(matrix.T).T)

        def undo() -> None:
            for matrix, values in before:
                matrix.copy_(values)

        return torch.no_grad()(undo)


@contextmanager
def checkpoint() -> Iterator[Path]:
    """The default model as a plain checkpoint folder."""
    model, tokenizer = load_embedded(MODEL)
    with TemporaryDirectory() as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        yield Path(place)
