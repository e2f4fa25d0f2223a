"""Is the model hub there? Asked once, so that an offline machine waits seconds, not minutes."""

from __future__ import annotations

from functools import cache

from huggingface_hub import constants, get_session


@cache
def hub_reachable() -> bool:
    """Whether the hub answers at all, through whatever proxy the environment sets."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # any failure of the client's means the same: not reachable
        return False
    return True
