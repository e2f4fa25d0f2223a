"""What an adapter names as its base, so that it can be loaded elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from somatlas.models.names import ADAPTERS, BASE

_WEIGHTS = ("*.safetensors", "*.gguf")
_SETTING = "`base_model_name_or_path` in adapter_config.json"


@dataclass(frozen=True)
class BaseModel:
    """name, revision : for PEFT's configuration. text : for a reader, what to do elsewhere."""

    name: str
    revision: str | None
    text: str


def base_model(typed: str, revision: str) -> BaseModel:
    """The base that a user named so: a hub name stays, a folder in the hub's cache gives its hub
    name, another folder or file its absolute path and the sha256 of its weights."""
    if typed in (*ADAPTERS, BASE):
        return BaseModel(
            typed,
            None,
            f"The base {typed} is one of somatlas's embedded models, and somatlas loads the "
            "adapter as it is. For other tools write the edited model with `--save-model`.",
        )
    path = Path(typed)
    if not path.exists():
        return BaseModel(typed, revision or None, f"The base is {typed} of the model hub.")
    whole = path.resolve()
    if cached := _from_cache(path.absolute()) or _from_cache(whole):
        name, commit = cached
        return BaseModel(name, commit, f"The base is {name} of the model hub, revision {commit}.")
    return BaseModel(
        str(whole),
        None,
        f"The base was loaded from {whole}. Elsewhere write where the same weights lie into "
        f"{_SETTING}. Their sha256: {', '.join(_digests(whole)) or 'none found'}.",
    )


def _from_cache(path: Path) -> tuple[str, str] | None:
    """Hub name and commit of a folder .../models--OWNER--NAME/snapshots/COMMIT."""
    if path.parent.name != "snapshots" or not path.parents[1].name.startswith("models--"):
        return None
    return path.parents[1].name.removeprefix("models--").replace("--", "/"), path.name


def _digests(path: Path) -> list[str]:
    files = [path] if path.is_file() else sorted(f for p in _WEIGHTS for f in path.glob(p))
    found = []
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        found.append(f"{file.name} {digest}")
    return found
