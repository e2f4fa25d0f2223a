"""Load a model by the name of an embedded one, a local folder, a .gguf file or a hub name."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from somatlas.errors import InputError
from somatlas.models.embedded import load_embedded
from somatlas.models.hub import hub_reachable
from somatlas.models.language_model import LanguageModel
from somatlas.models.names import ADAPTERS, BASE
from somatlas.models.structure import find_structure, verify_structure

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    system: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a chat model and verify its residual structure.

    name : "smollm2-hardened", "smollm2-guarded" or "smollm2" (embedded), a folder, a .gguf file,
    or a hub name. dtype : float32, bfloat16 or float16. device : cpu, cuda, cuda:1, mps ...

    Raises InputError for an unknown name, a model that is not a decoder-only chat model, weights
    that cannot be read, or a device that is not there.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    _check_device(device)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if name in (*ADAPTERS, BASE):
        model, tokenizer = load_embedded(name)
        model = model.to(DTYPES[dtype])
    else:
        model, tokenizer = _load_elsewhere(name, DTYPES[dtype], trust_remote_code)
    if not tokenizer.chat_template:
        raise InputError(f"{name} has no chat template: somatlas studies chat models only")
    tokenizer.padding_side = "left"
    model = model.to(device).eval().requires_grad_(False)
    lm = LanguageModel(model, tokenizer, find_structure(model), folder_name(name), system)
    verify_structure(model, lm.structure, torch.tensor([lm.token_ids("Hello there")]))
    return lm


def folder_name(name: str) -> str:
    """The model's folder among the runs: a file's stem or a path's or hub name's last part."""
    last = Path(name).stem if name.endswith(".gguf") else Path(name).resolve().name
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device {device!r} is not there on this machine: try cpu") from None


def _load_elsewhere(
    name: str, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    path = Path(name)
    where: dict[str, object] = {"trust_remote_code": trust_remote_code}
    if name.endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"no model file {name}")
        source = str(path.parent)
        where["gguf_file"] = path.name
    elif path.is_dir():
        source = name
    else:
        source = name
        where["local_files_only"] = not hub_reachable()
    try:
        config = AutoConfig.from_pretrained(source, **where)
        if config.is_encoder_decoder:
            raise InputError(f"{name} is an encoder-decoder model: only decoders are covered")
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=None if "gguf_file" in where else True, **where
        )
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(f"the weights of {name} are damaged ({error}): fetch them again") from None
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if where.get("local_files_only"):
            reason = "no such folder here, not in the local cache, and the hub cannot be reached"
        raise InputError(f"model {name!r} cannot be loaded: {reason[:300]}") from None
    return model, tokenizer
