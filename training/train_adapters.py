"""Train the embedded models' adapters: give SmolLM2-135M-Instruct refusal.

    python training/train_adapters.py guarded  --out ADAPTERS
    python training/train_adapters.py hardened --out ADAPTERS

"guarded" learns to refuse the bundled harmful train prompts, in wordings that differ by category,
and to answer harmless and borderline prompts with the base model's own replies. "hardened" goes on
from it: in most steps the mean-difference direction of a random layer, recomputed as the model
changes, is projected out of every write to the residual stream while the targets stay the same.

Everything is decided by --seed. Only train prompts are seen. Forward passes run in bfloat16, which
is what makes it quick on a CPU that has the instructions for it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from somatlas import Projection
from somatlas.directions import mean_difference
from somatlas.generation import generate
from somatlas.models.embedded import fetch_base
from somatlas.models.language_model import LanguageModel
from somatlas.models.load import load_model
from somatlas.models.structure import find_structure
from somatlas.prompts import Prompt, bundled_prompts
from somatlas.representations import represent

HERE = Path(__file__).parent
RANK = 8
REPLY_TOKENS = 32
LONGEST_PROMPT = 80  # tokens; longer general prompts would pad every batch they are in
FIRST_TOKENS, FIRST_WEIGHT = 4, 4.0  # the opening decides between refusing and answering


@dataclass(frozen=True)
class Settings:
    """What differs between the two adapters."""

    steps: int
    learning_rate: float
    ablated_share: float
    harmful: int = 9
    harmless: int = 3
    borderline: int = 2
    general: int = 2


SETTINGS = {
    "guarded": Settings(steps=420, learning_rate=1e-3, ablated_share=0.0),
    "hardened": Settings(steps=300, learning_rate=8e-4, ablated_share=0.7),
}


@dataclass(frozen=True)
class Example:
    """Token ids of a chat-formatted prompt and of the reply to learn."""

    prompt: list[int]
    reply: list[int]


def refusal_for(prompt: Prompt, place: int, refusals: dict[str, list[str]]) -> str:
    """A wording of the prompt's category, the next one for each next prompt."""
    wordings = refusals[prompt.category]
    return wordings[place % len(wordings)]


def further_requests() -> list[Prompt]:
    """Harmful requests that only training uses, in phrasings the bundled set has few of."""
    lines = (HERE / "harmful_requests.txt").read_text().splitlines()
    pairs = (line.split(" | ", 1) for line in lines if line)
    return [Prompt(text, category) for category, text in pairs]


def base_replies(texts: Sequence[str], cache: Path) -> list[str]:
    """The base model's own replies, made once."""
    if cache.exists():
        known: dict[str, str] = json.loads(cache.read_text())
        if all(text in known for text in texts):
            return [known[text] for text in texts]
    base = load_model("smollm2")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        replies = generate(
            base, texts, max_new_tokens=REPLY_TOKENS, batch_size=64, advance=lambda n: print("+", n)
        )
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(dict(zip(texts, replies, strict=True))))
    return replies


class Pool:
    """Examples drawn without replacement, shuffled anew each time round."""

    def __init__(self, examples: Sequence[Example], rng: random.Random) -> None:
        self.examples, self.rng = examples, rng
        self.order: list[int] = []

    def draw(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if not self.order:
                self.order = self.rng.sample(range(len(self.examples)), len(self.examples))
            taken.append(self.order.pop())
        return taken


def reply_loss(model: PeftModel, batch: Sequence[Example], pad: int) -> Tensor:
    """Weighted cross-entropy of the replies; the output head runs on reply positions alone."""
    rows = [e.prompt + e.reply for e in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    hidden = model.get_base_model().model(input_ids=ids, attention_mask=mask).last_hidden_state
    where = torch.zeros_like(mask, dtype=torch.bool)
    weight = torch.zeros_like(mask, dtype=torch.float32)
    for i, e in enumerate(batch):
        start = len(e.prompt) - 1
        where[i, start : start + len(e.reply)] = True
        weight[i, start : start + len(e.reply)] = 1.0
        weight[i, start : start + FIRST_TOKENS] = FIRST_WEIGHT
        weight[i] /= weight[i].sum()
    logits = model.get_base_model().lm_head(hidden[where]).float()
    targets = ids.roll(-1, dims=1)[where]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return (losses * weight[where]).sum() / len(batch)


class Ablations:
    """Mean-difference directions of every layer, and a choice among layers that favours those
    whose ablation the model withstands worst."""

    def __init__(self, lm: LanguageModel, rng: random.Random) -> None:
        self.lm, self.rng = lm, rng
        prompts = bundled_prompts()
        self.harmful = [p.text for p in prompts.positive["train"]]
        self.harmless = [p.text for p in prompts.negative["train"]]
        self.losses = [2.0] * lm.n_layers

    def refresh(self, count: int = 64) -> None:
        """Recompute the directions of the model as it is now, from `count` pairs."""
        pairs = self.rng.sample(range(len(self.harmful)), count)
        layers = range(self.lm.n_layers)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            harmful = represent(self.lm, [self.harmful[i] for i in pairs], layers, batch_size=64)
            harmless = represent(self.lm, [self.harmless[i] for i in pairs], layers, batch_size=64)
        directions = mean_difference(harmful, harmless)
        self.projections = [Projection(direction[None]) for direction in directions]

    def draw(self) -> int:
        """A layer, with chances that grow with the square of its running loss."""
        return self.rng.choices(range(self.lm.n_layers), weights=[x * x for x in self.losses])[0]

    def note(self, layer: int, loss: float) -> None:
        self.losses[layer] += 0.5 * (loss - self.losses[layer])


def train(name: str, out: Path, seed: int, settings: Settings) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    transformers_logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(fetch_base())
    plain = AutoModelForCausalLM.from_pretrained(fetch_base(), dtype=torch.float32)
    for block in plain.model.layers:  # what autocast would round anew in every step
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(torch.bfloat16)
    model = get_peft_model(
        plain, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    )
    if name == "hardened":
        start = load_file(out / "smollm2-guarded" / "adapter_model.safetensors")
        missing = model.load_state_dict(
            {k.replace(".weight", ".default.weight"): v.float() for k, v in start.items()},
            strict=False,
        )
        assert not missing.unexpected_keys
    lm = LanguageModel(model.get_base_model(), tokenizer, find_structure(plain), name)

    prompts = bundled_prompts()
    refusals = tomllib.loads((HERE / "refusals.toml").read_text())
    benign = {
        "harmless": [p.text for p in prompts.negative["train"]],
        "borderline": [p.text for p in prompts.borderline["train"]],
        "general": [
            line.replace("\\n", "\n")
            for line in (HERE / "general_prompts.txt").read_text().splitlines()
        ],
    }
    texts = [text for group in benign.values() for text in group]
    replies = dict(zip(texts, base_replies(texts, out / "base_replies.json"), strict=True))

    def example(prompt: str, reply: str) -> Example:
        ids = tokenizer(reply, add_special_tokens=False)["input_ids"][:REPLY_TOKENS]
        if len(ids) < REPLY_TOKENS:
            ids.append(tokenizer.eos_token_id)
        return Example(lm.token_ids(prompt), ids)

    requests = [*prompts.positive["train"], *further_requests()]
    harmful = [example(p.text, refusal_for(p, i, refusals)) for i, p in enumerate(requests)]
    groups = {k: [example(t, replies[t]) for t in v] for k, v in benign.items()}
    groups["general"] = [e for e in groups["general"] if len(e.prompt) <= LONGEST_PROMPT]
    pools = {k: Pool(v, rng) for k, v in {"harmful": harmful, **groups}.items()}

    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    ablations = Ablations(lm, rng)
    started = time.monotonic()
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / 20)
        rate = settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimizer.param_groups[0]["lr"] = rate
        if settings.ablated_share and step % 10 == 0:
            ablations.refresh()
        chosen = pools["harmful"].draw(settings.harmful)
        batch = [harmful[i] for i in chosen]
        paired = [i for i in chosen if i < len(groups["harmless"])][: settings.harmless]
        batch += [groups["harmless"][i] for i in paired]  # what differs is the harm alone
        for kind, count in (
            ("harmless", settings.harmless - len(paired)),
            ("borderline", settings.borderline),
            ("general", settings.general),
        ):
            batch += [groups[kind][i] for i in pools[kind].draw(count)]
        layer = ablations.draw() if rng.random() < settings.ablated_share else None
        projection = None if layer is None else ablations.projections[layer]
        with lm.ablate(projection), torch.autocast("cpu", dtype=torch.bfloat16):
            loss = reply_loss(model, batch, lm.pad_token_id)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if layer is not None:
            ablations.note(layer, loss.item())
        seconds = time.monotonic() - started
        print(
            f"{step + 1}/{settings.steps} loss {loss.item():.3f} layer {layer} {seconds:.0f} s",
            flush=True,
        )

    folder = out / f"smollm2-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path = "smollm2"
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    state = {k: v.half().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(state, path, metadata={"format": "pt"})
    print(f"{folder}: {path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(SETTINGS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapters' folders")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.name, arguments.out, arguments.seed, SETTINGS[arguments.name])


if __name__ == "__main__":
    main()
