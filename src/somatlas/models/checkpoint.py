"""A model and its tokenizer from a folder, a .gguf file or the hub, with one sentence for each
way in which that fails."""

from __future__ import annotations

import io
import json
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from somatlas.errors import InputError
from somatlas.models.hub import hub_reachable
from somatlas.models.memory import check_memory
from somatlas.models.output_maps import untie_head

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

_ADAPTER_CONFIG = "adapter_config.json"


def load_checkpoint(name: str, dtype: torch.dtype, device: str, trust_remote_code: bool) -> Loaded:
    """Load a model by name; its weights go straight to the device.

    Raises InputError where there is no such model, it is no decoder, its weights are pickled,
    damaged or larger than the memory, or it needs code of its own that is not trusted.
    """
    source, where = _where(name, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(source, **where)
        loader = _loader(config, name, trust_remote_code)
        check_memory(name, config, dtype, device)
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        with without_bar() if "gguf_file" in where else nullcontext():
            model = loader.from_pretrained(
                source,
                dtype=dtype,
                device_map=None if device == "cpu" else device,
                use_safetensors=None if "gguf_file" in where else True,
                **where,
            )
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(f"the weights of {name} are damaged ({error}): fetch them again") from None
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(_reason(name, error, where)) from None
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "mismatched" not in str(error):
            raise
        raise InputError(
            f"a tensor of {name} has another shape than its config.json asks for: the two belong "
            "to different models, take both from one place"
        ) from None
    if "gguf_file" in where:
        forget_quantiser(model)
    return model, tokenizer


def checkpoint_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a model by name; raises InputError where it cannot be loaded."""
    source, where = _where(name, trust_remote_code)
    try:
        return AutoTokenizer.from_pretrained(source, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(_reason(name, error, where)) from None


def _where(name: str, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Folder or hub name, and what else tells transformers where a model is."""
    path = Path(name)
    where: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if name.endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"no model file {name}")
        return str(path.parent), {**where, "gguf_file": path.name}
    if not path.is_dir():
        where["local_files_only"] = not hub_reachable()
    return name, where


def forget_quantiser(model: PreTrainedModel) -> None:
    """What is read from GGUF has plain weights; transformers would not save it all the same."""
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def without_bar() -> AbstractContextManager[Any]:
    """Where stderr is no terminal, drop the bar that transformers draws while it reads GGUF."""
    return nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())


def adapter_base(name: str) -> str | None:
    """The base model's name where `name` is a folder of a PEFT adapter, else None."""
    path = Path(name) / _ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is no adapter's configuration ({error})") from None


def merge_adapter(model: PreTrainedModel, folder: str | PathLike[str]) -> PreTrainedModel:
    """The model with an adapter's changes in its weights."""
    with warnings.catch_warnings():  # PEFT asks transformers for attributes by their old names
        warnings.simplefilter("ignore", FutureWarning)
        merged: PreTrainedModel = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return merged


def with_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model with a PEFT adapter merged in; an output head keeps its own matrix.

    Raises InputError where the adapter was made for another base.
    """
    untie_head(model)
    try:
        merged = merge_adapter(model, folder)
    except (RuntimeError, ValueError, KeyError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"adapter {folder} does not fit its base {adapter_base(folder)} ({first}): it was "
            "made for another model"
        ) from None
    return merged


def _loader(config: PretrainedConfig, name: str, trust_remote_code: bool) -> Any:
    """The class that loads such a model with a head that predicts the next token."""
    if config.is_encoder_decoder:
        raise InputError(f"{name} is an encoder-decoder model: only decoders are covered")
    if type(config) in AutoModelForCausalLM._model_mapping or trust_remote_code:
        return AutoModelForCausalLM
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    raise InputError(
        f"{name} is a {config.model_type} model, which predicts no next token: only decoders are "
        "covered"
    )


def _reason(name: str, error: Exception, where: dict[str, Any]) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "trust_remote_code" in text:
        return (
            f"{name} needs code that comes with the model: read that code, then give "
            "--trust-remote-code to run it"
        )
    if where.get("local_files_only"):
        text = "no such folder here, not in the local cache, and the hub cannot be reached"
    elif "safetensors" in text and "file named" in text:
        text = (
            "it has no safetensors weights, and pickled ones are never loaded; convert them, or "
            "take a .gguf file"
        )
    return f"model {name!r} cannot be loaded: {text[:300]}"
