"""Names of the embedded models; apart, so that naming one imports no model library."""

BASE = "smollm2"
ADAPTERS = ("smollm2-hardened", "smollm2-guarded")
DEFAULT_MODEL = ADAPTERS[0]
