"""Names of the embedded models, and defaults; apart, so that they import no model library."""

BASE = "smollm2"
ADAPTERS = ("smollm2-hardened", "smollm2-guarded")
DEFAULT_MODEL = ADAPTERS[0]
# What a chat template with a clock is told: the date that Llama 3's own prints where it has none.
DEFAULT_DATE = "2024-07-26"
