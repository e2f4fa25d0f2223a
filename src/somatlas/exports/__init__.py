"""What a run leaves for other tools: an edited model, a LoRA adapter, a file of directions."""

from somatlas.exports.adapter import save_adapter
from somatlas.exports.card import Provenance
from somatlas.exports.edited_model import save_model

__all__ = ["Provenance", "save_adapter", "save_model"]
