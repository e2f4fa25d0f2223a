"""Train the embedded models' adapters: give SmolLM2-135M-Instruct refusal.

    for phase in guarded hardened hardened-longer guarded-longer; do
        python training/train_adapters.py $phase --out ADAPTERS --answers FILE
    done

"guarded" learns to refuse the bundled harmful train prompts, in wordings that differ by category,
and to answer harmless and borderline prompts with the base model's own replies. "hardened" goes on
from it: in most steps the mean-difference direction of one layer, recomputed as the model changes,
is projected out of every write to the residual stream while the targets stay the same. A longer
phase goes on from the adapter of its name, at a lower rate.

Everything is decided by --seed. Seen are the bundled train prompts and those beside this script
(requests.txt: pairs; borderline_requests.txt; general_prompts.txt). Forward passes run in bfloat16,
which is what makes it quick on a CPU that has the instructions for it, and the chat template's head
that all prompts share is computed once a step.
"""

from __future__ import annotations

import argparse
import math
import random
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging as transformers_logging

from somatlas import Projection
from somatlas.directions.direction_set import mean_difference
from somatlas.models.batches import cache_argument, common_head
from somatlas.models.chat import chat_token_ids
from somatlas.models.embedded import fetch_base
from somatlas.models.language_model import LanguageModel
from somatlas.models.structure import find_structure
from somatlas.prompts import Prompt, bundled_prompts
from somatlas.representations.extract import residual_stream
from targets import base_answers

HERE = Path(__file__).parent
RANK = 8
REPLY_TOKENS = 48  # the end token included; targets are shorter
OPENING_TOKENS, WHOLE_SHARE = 12, 0.5  # other steps learn the opening alone, which is quicker
LONGEST_PROMPT = 64  # tokens; longer general prompts would pad every batch they are in
FIRST_TOKENS, FIRST_WEIGHT = 4, 4.0  # the opening decides between refusing and answering
END_WEIGHT = 3.0  # a model that does not end its reply loops


@dataclass(frozen=True)
class Settings:
    """What differs between the two adapters.

    ablated_share : share of the steps with a direction projected out, halved in the last quarter,
    where the model learns once more how it stands unablated.
    """

    steps: int
    learning_rate: float
    ablated_share: float = 0.0
    harmful: int = 8
    harmless: int = 5
    borderline: int = 5
    general: int = 2
    start: str | None = None


SETTINGS = {
    "guarded": Settings(steps=340, learning_rate=1e-3),
    "guarded-longer": Settings(start="guarded", steps=230, learning_rate=7e-4),
    "hardened": Settings(start="guarded", steps=280, learning_rate=9e-4, ablated_share=0.75),
    "hardened-longer": Settings(
        start="hardened", steps=230, learning_rate=7e-4, ablated_share=0.75
    ),
}


@dataclass(frozen=True)
class Example:
    """A request and the reply to learn."""

    request: str
    reply: str


def refusal_for(prompt: Prompt, place: int, refusals: dict[str, list[str]]) -> str:
    """A wording of the prompt's category, the next one for each next prompt."""
    wordings = refusals[prompt.category]
    return wordings[place % len(wordings)]


def rows(name: str) -> list[list[str]]:
    """The fields of each line of a file beside this script."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n").split(" | ") for line in lines if line]


def varied(text: str, rng: random.Random) -> str:
    """The request as it is or in another usual spelling: its form must not decide the reply."""
    draw = rng.random()
    if draw < 0.15:
        return text.lower()
    if draw < 0.35:
        return text[:-1] if text.endswith(".") else text if text.endswith("?") else text + "."
    return text


class Pool:
    """Places of examples drawn without replacement, shuffled anew each time round."""

    def __init__(self, places: Sequence[int], rng: random.Random) -> None:
        self.places, self.rng = places, rng
        self.order: list[int] = []

    def draw(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if not self.order:
                self.order = self.rng.sample(self.places, len(self.places))
            taken.append(self.order.pop())
        return taken


def batches_of_like_length(
    groups: dict[str, list[Example | None]], settings: Settings, rng: random.Random
) -> Iterator[list[Example]]:
    """Batches without end, of the settings' composition over every four: drawn together and dealt
    out by length, for padding is what costs most. A harmful request has its twin, the harmless one
    in its place, at its side as far as there is room: what differs is the harm alone. Requests
    without a usable answer (None) are not drawn."""
    pools = {
        kind: Pool([i for i, example in enumerate(examples) if example is not None], rng)
        for kind, examples in groups.items()
    }
    while True:
        drawn: list[Example | None] = []
        for _ in range(4):
            chosen = pools["harmful"].draw(settings.harmful)
            drawn += [groups["harmful"][i] for i in chosen]
            drawn += [groups["harmless"][i] for i in chosen[: settings.harmless]]
            for kind, count in (("borderline", settings.borderline), ("general", settings.general)):
                drawn += [groups[kind][i] for i in pools[kind].draw(count)]
        examples = [example for example in drawn if example is not None]
        examples.sort(key=lambda example: len(example.request) + len(example.reply))
        size = math.ceil(len(examples) / 4)
        batches = [examples[i : i + size] for i in range(0, len(examples), size)]
        rng.shuffle(batches)
        yield from batches


def reply_loss(
    model: PeftModel,
    shared: Sequence[int],
    batch: Sequence[tuple[list[int], list[int]]],
    pad: int,
    end: int,
) -> Tensor:
    """Weighted cross-entropy of the replies, over a batch of (prompt, reply) token ids.

    shared : the ids that every prompt begins with, computed once and left out of the rows. The
    output head runs on reply positions alone.
    """
    rows = [prompt[len(shared) :] + reply for prompt, reply in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * (len(shared) + len(r)) + [0] * (width - len(r)) for r in rows])
    decoder = model.get_base_model().model
    cache = {cache_argument(decoder): DynamicCache(config=decoder.config)}
    decoder(input_ids=torch.tensor([shared]), use_cache=True, **cache)
    next(iter(cache.values())).batch_repeat_interleave(len(rows))
    hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=True, **cache).last_hidden_state
    where = torch.zeros_like(ids, dtype=torch.bool)
    weight = torch.zeros_like(ids, dtype=torch.float32)
    for i, (prompt, reply) in enumerate(batch):
        start = len(prompt) - len(shared) - 1
        where[i, start : start + len(reply)] = True
        weight[i, start : start + len(reply)] = 1.0
        weight[i, start : start + FIRST_TOKENS] = FIRST_WEIGHT
        if reply[-1] == end:
            weight[i, start + len(reply) - 1] = END_WEIGHT
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
        self.losses = [1.0] * lm.n_layers

    def refresh(self, count: int = 40) -> None:
        """Recompute the directions of the model as it is now, from `count` pairs."""
        pairs = self.rng.sample(range(len(self.harmful)), count)
        layers = range(self.lm.n_layers)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            harmful = residual_stream(
                self.lm, [self.harmful[i] for i in pairs], layers, batch_size=64
            )
            harmless = residual_stream(
                self.lm, [self.harmless[i] for i in pairs], layers, batch_size=64
            )
        directions = mean_difference(harmful, harmless)
        self.projections = [Projection(direction[None]) for direction in directions]

    def draw(self) -> int:
        """A layer, with chances that grow with the cube of its running loss."""
        return self.rng.choices(range(self.lm.n_layers), weights=[x**3 for x in self.losses])[0]

    def note(self, layer: int, loss: float) -> None:
        self.losses[layer] += 0.5 * (loss - self.losses[layer])


def train(name: str, out: Path, cache: Path, seed: int, settings: Settings) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    transformers_logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(fetch_base())
    plain = AutoModelForCausalLM.from_pretrained(fetch_base(), dtype=torch.float32)
    structure = find_structure(plain, torch.tensor([chat_token_ids(tokenizer, "Hello there")]))
    for block in plain.model.layers:  # what autocast would round anew in every step
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(torch.bfloat16)
    model = get_peft_model(
        plain, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    )
    if settings.start is not None:
        start = load_file(out / f"smollm2-{settings.start}" / "adapter_model.safetensors")
        missing = model.load_state_dict(
            {k.replace(".weight", ".default.weight"): v.float() for k, v in start.items()},
            strict=False,
        )
        assert not missing.unexpected_keys
    lm = LanguageModel(model.get_base_model(), tokenizer, structure, name)

    prompts = bundled_prompts()
    refusals = tomllib.loads((HERE / "refusals.toml").read_text())
    pairs = rows("requests.txt")
    requests = [
        *prompts.positive["train"],
        *(Prompt(harmful, category) for category, harmful, _ in pairs),
    ]
    benign = {
        "harmless": [*(p.text for p in prompts.negative["train"]), *(row[2] for row in pairs)],
        "borderline": [
            *(p.text for p in prompts.borderline["train"]),
            *(row[1] for row in rows("borderline_requests.txt")),
        ],
        "general": [row[0] for row in rows("general_prompts.txt")],
    }
    benign["general"] = [t for t in benign["general"] if len(lm.token_ids(t)) <= LONGEST_PROMPT]
    texts = [text for group in benign.values() for text in group]
    answers = base_answers(texts, cache)
    print(f"{len(set(texts)) - len(answers)} of {len(set(texts))} requests have no usable answer")
    groups: dict[str, list[Example | None]] = {
        "harmful": [Example(p.text, refusal_for(p, i, refusals)) for i, p in enumerate(requests)],
        **{
            kind: [Example(t, answers[t]) if t in answers else None for t in group]
            for kind, group in benign.items()
        },
    }
    shared, end = common_head([lm.token_ids(text) for text in texts]), tokenizer.eos_token_id

    def encode(example: Example, length: int) -> tuple[list[int], list[int]]:
        reply = [*tokenizer(example.reply, add_special_tokens=False)["input_ids"], end]
        return lm.token_ids(varied(example.request, rng)), reply[:length]

    batches = batches_of_like_length(groups, settings, rng)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    ablations = Ablations(lm, rng)
    if settings.ablated_share:
        ablations.refresh()
        probe = [encode(e, OPENING_TOKENS) for e in groups["harmful"][::60] if e is not None]
        for place, one in enumerate(ablations.projections):
            with torch.no_grad(), lm.ablate(one), torch.autocast("cpu", torch.bfloat16):
                ablations.losses[place] = reply_loss(
                    model, shared, probe, lm.pad_token_id, end
                ).item()
    started = time.monotonic()
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / 20)
        rate = settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimizer.param_groups[0]["lr"] = rate
        if settings.ablated_share and step % 10 == 0:
            ablations.refresh()
        share = settings.ablated_share * (1.0 if step < 0.75 * settings.steps else 0.5)
        layer = ablations.draw() if rng.random() < share else None
        projection = None if layer is None else ablations.projections[layer]
        length = REPLY_TOKENS if rng.random() < WHOLE_SHARE else OPENING_TOKENS
        encoded = [encode(example, length) for example in next(batches)]
        with lm.ablate(projection), torch.autocast("cpu", dtype=torch.bfloat16):
            loss = reply_loss(model, shared, encoded, lm.pad_token_id, end)
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

    folder = out / f"smollm2-{name.partition('-')[0]}"
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
    parser.add_argument(
        "--answers", type=Path, required=True, help="file of the base model's answers, made once"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(
        arguments.name, arguments.out, arguments.answers, arguments.seed, SETTINGS[arguments.name]
    )


if __name__ == "__main__":
    main()
