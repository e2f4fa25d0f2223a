"""What proposes trials, by name; other packages add theirs by entry points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from somatlas.plugins import Registry, own_settings

if TYPE_CHECKING:
    from somatlas.searches.proposer import Proposer

_ROOM = "somatlas.searches"
SAMPLERS: Registry[Proposer] = Registry(
    "sampler",
    "somatlas.samplers",
    f"{_ROOM}.proposer:Proposer",
    {
        "surrogate": f"{_ROOM}.proposers:SurrogateProposer",
        "parzen": f"{_ROOM}.proposers:ParzenProposer",
        "random": f"{_ROOM}.proposers:RandomProposer",
    },
)


def sampler_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler's own settings, whole (`somatlas.plugins.own_settings`)."""
    return own_settings("sampler", name, SAMPLERS.get(name), given)


def make_proposer(
    name: str | None, own: Mapping[str, Any] | None = None, *, ordered: bool = False
) -> Proposer:
    """The proposer of a name, with its own settings; None: the surrogate, or, of ordered tuples,
    the Parzen estimator, as the paper's code."""
    chosen = name or ("parzen" if ordered else "surrogate")
    return SAMPLERS.get(chosen)(**sampler_settings(chosen, own or {}))
