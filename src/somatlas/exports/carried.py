"""What of its source an export carries beside the weights in memory, and what it does not.

Tensors that no class of transformers reads (multi-token prediction, say) and the files of a
processor belong to a checkpoint as much as the weights that are edited.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from somatlas.models.integrity import Stored, read_json_file, some, stored_tensors
from somatlas.models.language_model import LanguageModel

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_EXTRA = "model-unread.safetensors"
# Other forms of the weights; each would hold the unedited model.
_WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".npz"}
)
# Written anew: they describe the export. Verbatim from the source: what no edit changes.
_OWN = frozenset({"README.md", "config.json", _INDEX, "pytorch_model.bin.index.json"})
_VERBATIM = frozenset({"generation_config.json"})


def left_behind(lm: LanguageModel) -> list[str]:
    """What an export of the model will not carry, a sentence each; known before it is saved."""
    if lm.folder is None:
        return []
    stored = stored_tensors(lm.folder)
    read = {one.file for one in stored.values()}
    lines = []
    gone = [name for name in lm.unread if name not in stored]
    if gone:
        lines.append(f"not carried: {some(gone)}, which nothing reads and no file has by that name")
    other = [p.name for p in _entries(lm.folder) if p.suffix in _WEIGHTS and p not in read]
    if other:
        lines.append(f"not carried: {some(other)}, other forms of the unedited weights")
    folders = [f"{p.name}/" for p in _entries(lm.folder) if p.is_dir()]
    if folders:
        lines.append(f"not carried: the folders {some(folders)}")
    own = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}.get(str(lm.model.dtype)[6:])
    formats = sorted({one.dtype for one in stored.values()} - {own})
    if formats:
        lines.append(f"values stored as {', '.join(formats)} are saved as {own}")
    return lines


def carry_over(lm: LanguageModel, target: Path) -> list[str]:
    """Add to an export what its source has besides; returns what was added, a sentence each.

    Tensors that nothing reads are copied as they are: no ablation acts on them.
    """
    if lm.folder is None:
        return []
    lines = []
    stored, written = stored_tensors(lm.folder), stored_tensors(target)
    unread = {n: stored[n] for n in lm.unread if n in stored and n not in written}
    if unread:
        _add_tensors(unread, target)
        lines.append(
            f"copied unedited: {some(unread)} ({len(unread)} tensors), which somatlas does not "
            "read: what they compute is not ablated"
        )
    files = [
        path
        for path in _entries(lm.folder)
        if path.is_file()
        and path.suffix not in _WEIGHTS
        and path.name not in _OWN
        and (path.name in _VERBATIM or not (target / path.name).exists())
    ]
    for path in files:
        shutil.copyfile(path, target / path.name)
    if files:
        lines.append(f"copied from the source: {', '.join(sorted(p.name for p in files))}")
    return lines


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _add_tensors(tensors: dict[str, Stored], target: Path) -> None:
    """A further shard, and the index that names it."""
    values = {}
    for name, one in tensors.items():
        with safe_open(one.file, framework="pt") as file:
            values[name] = file.get_tensor(name)
    save_file(values, target / _EXTRA, metadata={"format": "pt"})
    index = target / _INDEX
    if index.is_file():
        content = read_json_file(index)
    else:
        own = stored_tensors(target)
        content = {"metadata": {}, "weight_map": {}}
        first = target / "model-00001-of-00001.safetensors"
        (target / _SINGLE).rename(first)
        content["weight_map"] = dict.fromkeys(sorted(own), first.name)
    content["weight_map"] |= dict.fromkeys(sorted(values), _EXTRA)
    index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
