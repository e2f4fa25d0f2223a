"""A model and its tokenizer from a folder, a .gguf file or the hub, with one sentence for each
way in which that fails."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from somatlas.errors import InputError
from somatlas.files import from_json
from somatlas.models.integrity import (
    LoadReport,
    check_files,
    format_notes,
    load_report,
    some,
    stored_tensors,
    value_notes,
)
from somatlas.models.memory import check_memory
from somatlas.models.online import hub_reachable
from somatlas.models.output_maps import untie_head


class Loaded(NamedTuple):
    """A model, its tokenizer, the folder of its files (None where it has none of its own), the
    names of tensors of these files that nothing reads, and what is odd, a sentence each."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path | None = None
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_PREDICTORS = frozenset(
    {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    | {*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()}
)
_ADAPTER_CONFIG = "adapter_config.json"


def load_checkpoint(name: str, dtype: torch.dtype, device: str, trust_remote_code: bool) -> Loaded:
    """Load a model by name; its weights go straight to the device.

    Raises InputError where there is no such model, it is no decoder, its weights are pickled,
    damaged, not all there or larger than the memory, or it needs code of its own that is not
    trusted.
    """
    path, (source, where) = Path(name), _where(name, trust_remote_code)
    if path.is_dir():
        check_files(path)
    with load_report() as report:
        try:
            config = AutoConfig.from_pretrained(source, **where)
            loader = _loader(config, name, trust_remote_code, "gguf_file" in where)
            check_memory(name, config, dtype, device, loader)
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
            with without_bar() if "gguf_file" in where else nullcontext():
                model = loader.from_pretrained(
                    source,
                    dtype=dtype,
                    device_map={"cpu": None, "spread": "auto"}.get(device, device),
                    use_safetensors=None if "gguf_file" in where else True,
                    **where,
                )
        except InputError:
            raise
        except SafetensorError as error:
            raise InputError(
                f"the weights of {name} are damaged ({error}): fetch them again"
            ) from None
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # configurations and tokenizers raise what they like
            report.check(name, _stored_names(path))
            if trust_remote_code and isinstance(error, AttributeError | TypeError):
                raise  # the model's own code
            raise InputError(_reason(name, error, where)) from None
    report.check(name, _stored_names(path))
    if "gguf_file" in where:
        forget_quantiser(model)
        return Loaded(model, tokenizer, None, tuple(sorted(report.unread)))
    folder = checkpoint_folder(name, config)
    return Loaded(
        model,
        tokenizer,
        folder,
        tuple(sorted(report.unread)),
        _notes(model, config, folder, report),
    )


def _stored_names(path: Path) -> list[str]:
    return list(stored_tensors(path)) if path.is_dir() else []


def checkpoint_folder(name: str, config: PretrainedConfig) -> Path | None:
    """The folder of a checkpoint's files: the user's own, or the hub's in the cache."""
    if Path(name).is_dir():
        return Path(name)
    commit = getattr(config, "_commit_hash", None)
    file = try_to_load_from_cache(name, "config.json", revision=commit)
    return Path(file).parent if isinstance(file, str) else None


def _notes(
    model: PreTrainedModel, config: PretrainedConfig, folder: Path | None, report: LoadReport
) -> tuple[str, ...]:
    """What is odd about a checkpoint that was loaded."""
    notes = []
    if folder is not None:
        quantised = getattr(config, "quantization_config", None) is not None
        notes += format_notes(stored_tensors(folder), quantised=quantised)
    if report.unread:
        notes.append(f"nothing reads {some(report.unread)}, which the checkpoint has")
    if report.allowed:
        notes.append(
            f"{some(report.allowed)} is not in the checkpoint and starts at a value of its own, as "
            f"{type(model).__name__} allows"
        )
    called = (config.architectures or [type(model).__name__])[0]
    if called != type(model).__name__:
        notes.append(f"config.json calls it {called}: it was loaded as {type(model).__name__}")
    return (*notes, *value_notes(model))


def checkpoint_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a model by name; raises InputError where it cannot be loaded."""
    source, where = _where(name, trust_remote_code)
    if Path(name).is_dir():
        check_files(Path(name))
    try:
        return AutoTokenizer.from_pretrained(source, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(_reason(name, error, where)) from None


def checkpoint_config(name: str, trust_remote_code: bool) -> PretrainedConfig:
    """The configuration of a model by name; raises InputError where it cannot be read."""
    source, where = _where(name, trust_remote_code)
    try:
        return AutoConfig.from_pretrained(source, **where)
    except Exception as error:  # configurations raise what they like
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
        return str(from_json(path.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is no adapter's configuration ({error})") from None


def merge_adapter(model: PreTrainedModel, folder: str | PathLike[str]) -> PreTrainedModel:
    """The model with an adapter's changes in its weights.

    Raises InputError where the adapter lacks some of its matrices, which PEFT takes for no change.
    """
    with warnings.catch_warnings():  # PEFT asks for attributes by old names, and reports what lacks
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(model, folder)
        config = adapted.peft_config["default"]
        config.base_model_name_or_path = None  # of which PEFT would ask the hub
        read = set(get_peft_model_state_dict(adapted))
    modules = dict(adapted.named_modules())
    wanted = {
        key
        for key in read
        # PEFT adds matrices of no effect to experts in one tensor, which no adapter's file holds
        if type(modules.get(key.partition(".lora_")[0])).__name__ != "ParamWrapper"
    }
    file = Path(folder) / "adapter_model.safetensors"
    if file.is_file():
        with safe_open(file, framework="pt") as opened:
            held = set(opened.keys())
        lacking, unread = wanted - held, held - read
        if lacking or unread:
            parts = [f"lacks {some(lacking)}"] if lacking else []
            parts += [f"has {some(unread)}, which nothing reads"] if unread else []
            raise InputError(
                f"adapter {folder} {' and '.join(parts)}: it is not whole, or another's"
            )
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def with_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model with a PEFT adapter merged in; an output head keeps its own matrix.

    Raises InputError where the adapter was made for another base.
    """
    untie_head(model)
    try:
        merged = merge_adapter(model, folder)
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(
            f"adapter {folder} does not fit its base {adapter_base(folder)} ({first}): it was "
            "made for another model"
        ) from None
    return merged


def _loader(config: PretrainedConfig, name: str, trust_remote_code: bool, gguf: bool) -> Any:
    """The class that loads such a model with a head that predicts the next token.

    The class that config.json names comes first: transformers' automatic classes would load a
    model of images and text as one of text alone, without the rest of its weights.
    """
    if config.is_encoder_decoder:
        raise InputError(f"{name} is an encoder-decoder model: only decoders are covered")
    own = (config.architectures or [""])[0]
    remote = trust_remote_code and getattr(config, "auto_map", None)
    if own in _PREDICTORS and not gguf and not remote:
        kind = getattr(transformers, own)
        if isinstance(config, kind.config_class):
            return kind
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
    if isinstance(error, KeyError):
        text = f"its configuration names {text}, which transformers does not know"
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
