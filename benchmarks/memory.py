"""Peak memory of the representations of a wide and deep model, which streams them to disk.

    python benchmarks/memory.py

A random Llama of 32 layers and d 4096, narrow inside so that it runs in minutes; 10,000 prompts.
All vectors at once would be 5.2 GB (float32).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common import Row, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conftest import tiny_tokenizer

SIDE, LAYERS, D_MODEL = 5000, 32, 4096  # train prompts a side; a file lends 60 % of its own
GB = 1e9


def save_model(
    folder: Path, layers: int = LAYERS, d_model: int = D_MODEL, inner: int = 64
) -> float:
    """Write the model's checkpoint; returns its weights' bytes. inner : width of all else."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=d_model,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=inner,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return float(sum(p.numel() * p.element_size() for p in model.parameters()))


def represent(folder: Path, side: int, out: Path) -> list[str]:
    """Arguments that represent so many train prompts a side of the folder's model."""
    line = ["represent", str(folder / "model")]
    for name, word in (("positive", "break"), ("negative", "mend")):
        path = folder / f"{name}-{side}.txt"
        path.write_text("\n".join(f"{word} it: {i}" for i in range(2 * side)))
        line += [f"--{name}", str(path)]
    return [*line, "--train-prompts", str(side), "--out", str(out)]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = save_model(folder / "model")
        line = [sys.executable, "-m", "somatlas", *represent(folder, SIDE, folder / "runs")]
        subprocess.run(line, check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        shards = folder.glob("runs/model/default/representations/*.safetensors")
        stored = sum(path.stat().st_size for path in shards)
    allowed = weights + GB
    write(
        "memory",
        [
            Row(
                f"peak memory, {2 * SIDE} prompts, {LAYERS} layers, d {D_MODEL} "
                f"({stored / GB:.1f} GB of vectors)",
                f"the weights ({weights / GB:.2f} GB) and 1 GB",
                f"{peak / GB:.2f} GB",
                f"{allowed / GB:.2f} GB",
                allowed / peak,
                1,
            )
        ],
    )


if __name__ == "__main__":
    main()
