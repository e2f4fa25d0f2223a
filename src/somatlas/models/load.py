"""Load a model by the name of an embedded one, a folder, a .gguf file or a hub name."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path, PurePath
from typing import get_args

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from somatlas.arguments import check_choice, check_kind, check_unicode
from somatlas.errors import InputError
from somatlas.models.batches import head_cache_is_exact, padding_is_exact
from somatlas.models.chat import chat_token_ids, find_format, given_template
from somatlas.models.checkpoint import (
    Loaded,
    adapter_base,
    checkpoint_config,
    checkpoint_tokenizer,
    load_checkpoint,
    with_adapter,
)
from somatlas.models.embedded import fetch_base, load_embedded
from somatlas.models.language_model import LanguageModel
from somatlas.models.limits import limits_of
from somatlas.models.names import ADAPTERS, BASE, DEFAULT_DATE
from somatlas.models.packed import pack_linears
from somatlas.models.placement import Precision, chosen_device, chosen_precision
from somatlas.models.plain_text import plain_text_loss
from somatlas.models.reasoning import skipping_text, template_marks
from somatlas.models.structure import Site, find_structure

_PROBES = ("Hello there", "Name three rivers of Europe, please.")  # of unequal length
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | PurePath,
    *,
    dtype: str = "auto",
    device: str = "auto",
    system: str | None = None,
    chat_template: str | PurePath | None = None,
    site: Site = "projection",
    edit_head: bool = False,
    thinking: bool | None = None,
    date: str = DEFAULT_DATE,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a chat model and verify its residual structure.

    name : "smollm2-hardened", "smollm2-guarded" or "smollm2" (embedded), a folder (a checkpoint or
    a PEFT adapter), a .gguf file, or a hub name. dtype : float32, bfloat16, float16, or auto (see
    `somatlas.models.placement`). device : cpu, cuda, cuda:1, mps, auto (a GPU where there is one)
    or spread (over all there are). chat_template : in place of the
    model's own: "chatml", the name of another of its own, a Jinja template, or a file with one.
    date : see `find_format`. system, site, edit_head, thinking : see `LanguageModel`.

    Raises InputError for an unknown name, a model that is not a decoder-only chat model or whose
    residual stream is not the sum of its parts, weights that cannot be read or do not fit, or a
    device that is not there.
    """
    check_kind("model", name, (str, PurePath), "a name or a folder")
    name = str(name)
    if chat_template is not None:
        chat_template = str(chat_template)
    check_kind("system", system, (str, type(None)), "a text or None")
    if system is not None:
        check_unicode("system", system)
    check_choice("site", site, get_args(Site))
    check_kind("trust_remote_code", trust_remote_code, bool, "True or False")
    try:
        datetime.fromisoformat(date)
    except (TypeError, ValueError):
        raise InputError(f"date must be YYYY-MM-DD, not {date!r}") from None
    if dtype not in (*DTYPES, "auto"):
        raise InputError(f"dtype must be one of {', '.join(DTYPES)} or auto, not {dtype!r}")
    check_device(device)
    device = chosen_device(device)
    if dtype == "auto":
        dtype = precision_of(name, device, trust_remote_code).dtype
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded = _load(name, DTYPES[dtype], device, trust_remote_code)
    except (AttributeError, TypeError) as error:
        if not trust_remote_code:
            raise
        raise InputError(_outdated(name, None, error)) from None
    model, tokenizer = loaded.model, loaded.tokenizer
    chat = find_format(
        tokenizer, name, source=chat_template, date=date, system=system, thinking=thinking
    )
    if chat_template is not None:
        tokenizer.chat_template = given_template(tokenizer, name, chat_template)
    tokenizer.padding_side = "left"
    model.eval().requires_grad_(False)
    probes = [chat_token_ids(tokenizer, text, system, thinking, chat) for text in _PROBES]
    limits_of(model).check(name, probes)
    try:
        structure = find_structure(model, torch.tensor(probes[:1]))
        pack_linears(model)
        pads = padding_is_exact(model, probes)
        shares_head = pads and head_cache_is_exact(model, probes)
        if _brings_its_code(model):
            _try_generation(model, probes[0])
    except InputError:
        raise
    except Exception as error:  # code that comes with a model raises what it likes
        if not _brings_its_code(model):
            raise
        raise InputError(_outdated(name, model.config.transformers_version, error)) from None
    lm = LanguageModel(
        model,
        tokenizer,
        structure,
        folder_name(name),
        system=system,
        site=site,
        edit_head=edit_head,
        shares_head=shares_head,
        pads=pads,
        thinking=thinking,
        chat=chat,
        folder=loaded.folder,
        unread=loaded.unread,
        notes=loaded.notes,
        marks=template_marks(tokenizer),
    )
    lm = replace(lm, skip=_skip(lm))
    found = plain_text_loss(lm)
    odd = () if found.is_language else (found.sentence,)
    return replace(lm, notes=(*loaded.notes, *odd))


@torch.no_grad()
def _skip(lm: LanguageModel) -> tuple[int, ...]:
    """Token ids that end a model's reasoning before it begins, none where it does not reason.

    It does where its template opens a block of reasoning, or where the token that the template's
    own mark begins with is its first choice after the probes.
    """
    prompt = _PROBES[0]
    head = str(lm.tokenizer.decode(lm.token_ids(prompt)))
    if not lm.opens_reasoning(prompt):
        if lm.marks is None:
            return ()
        (_, log_p), *_ = lm.next_token_log_probabilities(_PROBES, len(_PROBES))
        opening = lm.tokenizer(lm.marks.open.lstrip(), add_special_tokens=False)["input_ids"]
        if not opening or not bool((log_p.argmax(dim=-1) == opening[0]).all()):
            return ()
    text = skipping_text(head, lm.marks)
    return tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A model's tokenizer alone, in a moment; raises InputError as `load_model` does."""
    if name in (*ADAPTERS, BASE):
        return AutoTokenizer.from_pretrained(fetch_base())
    base = _base_here(name)
    if base is None:
        return checkpoint_tokenizer(name, trust_remote_code)
    if any(Path(name).glob("tokenizer*")):
        return AutoTokenizer.from_pretrained(name)
    return load_tokenizer(base, trust_remote_code)


def load_config(name: str, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model's text part, in a moment; raises InputError as `load_model`."""
    if name in (*ADAPTERS, BASE):
        return AutoConfig.from_pretrained(fetch_base())
    base = _base_here(name)
    if base is None:
        return checkpoint_config(name, trust_remote_code).get_text_config()
    return load_config(base, trust_remote_code)


@cache
def precision_of(name: str, device: str, trust_remote_code: bool = False) -> Precision:
    """The precision for a model by name that is left open; raises InputError as `load_model`.

    Tried once a process: runs of one command are alike.
    """
    return chosen_precision(load_config(name, trust_remote_code), chosen_device(device))


def folder_name(name: str) -> str:
    """The model's folder among the runs: a file's stem or a path's or hub name's last part."""
    last = Path(name).stem if name.endswith(".gguf") else Path(name).resolve().name
    return re.sub(r"[^\w.-]+", "-", last).strip("-.") or "model"


def _base_here(name: str) -> str | None:
    """The base of an adapter's folder as it is found here, None where `name` is no adapter.

    A path that is not here is looked for beside the adapter. Raises InputError where it is not
    there either, and is no hub name.
    """
    base = adapter_base(name)
    if base is None or base in (*ADAPTERS, BASE) or Path(base).exists():
        return base
    if (Path(name) / base).exists():
        return str(Path(name) / base)
    if Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1 or "\\" in base:
        raise InputError(
            f"the adapter {name} names {base} as its base, which is not here: write where those "
            "weights lie (its README.md has their sha256) into base_model_name_or_path of "
            f"{Path(name) / 'adapter_config.json'}"
        )
    return base


def _load(name: str, dtype: torch.dtype, device: str, trust_remote_code: bool) -> Loaded:
    if name in (*ADAPTERS, BASE):
        model, tokenizer = load_embedded(name)
        return Loaded(model.to("cpu" if device == "spread" else device, dtype), tokenizer)
    base = _base_here(name)
    if base is None:
        return load_checkpoint(name, dtype, device, trust_remote_code)
    loaded = _load(base, dtype, device, trust_remote_code)
    if any(Path(name).glob("tokenizer*")):
        loaded = loaded._replace(tokenizer=AutoTokenizer.from_pretrained(name))
    return loaded._replace(model=with_adapter(loaded.model, name))


def _brings_its_code(model: PreTrainedModel) -> bool:
    """Whether the model's class is not the library's but came with the checkpoint."""
    return type(model).__module__.partition(".")[0] == "transformers_modules"


def _try_generation(model: PreTrainedModel, ids: list[int]) -> None:
    tokens = torch.tensor([ids], device=model.device)
    model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        generation_config=GenerationConfig(max_new_tokens=2, do_sample=False),
    )


def _outdated(name: str, written_for: str | None, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return (
        f"the code that comes with {name} does not run under transformers {transformers_version} "
        f"({reason}): it was written for {written_for or 'an older one'}, and somatlas needs 5.1 "
        "or later; take a checkpoint of that model, or a successor, that transformers loads "
        "without such code"
    )


def check_device(device: str) -> None:
    """Raise InputError where a device is not there."""
    check_kind("device", device, str, "a text, as cpu or cuda:1")
    try:
        some = torch.empty(1, device="cpu" if device in ("auto", "spread") else device)
        some.tolist()  # a device of no values, as meta, has none
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device {device!r} is not there on this machine: try cpu") from None
