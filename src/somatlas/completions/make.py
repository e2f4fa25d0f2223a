"""Completions of prompts under an edit: which are asked for, and how a model makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from somatlas.ablation import Projection
from somatlas.completions.cache import ReplyStore, model_key
from somatlas.completions.completion import Completion
from somatlas.completions.kept import KeptReplies
from somatlas.models.generation import generate
from somatlas.models.language_model import LanguageModel
from somatlas.models.reasoning import Parted
from somatlas.models.reply import Reply
from somatlas.models.sampling import Sampling
from somatlas.progress import Advance, ignore
from somatlas.prompts import Prompt
from somatlas.prompts.prompt_set import PromptSplit


@dataclass(frozen=True)
class Asked:
    """One prompt as it is put to the model."""

    kind: str
    prompt: Prompt
    system: str | None
    sample: int


# Under a system prompt, what is said to each of some prompts.
Replies = Callable[[Sequence[str], str | None], Sequence[Parted]]


def asked(
    prompts: PromptSplit, systems: Sequence[str | None] = (None,), samples: int = 1
) -> list[Asked]:
    """Every prompt of a split, under every system prompt, as often as replies are asked for."""
    kinds = {
        "harmful": prompts.harmful,
        "harmless": prompts.harmless,
        "borderline": prompts.borderline,
    }
    return [
        Asked(kind, prompt, system, sample)
        for system in systems
        for sample in range(samples)
        for kind, own in kinds.items()
        for prompt in own
    ]


def completions(
    wanted: Sequence[Asked], replies: Replies, *, name_systems: bool = False
) -> list[Completion]:
    """What is asked for, in its order. name_systems : keep under which system prompt each was
    made."""
    parted: list[Parted] = []
    for system in dict.fromkeys(one.system for one in wanted):
        parted += replies([one.prompt.text for one in wanted if one.system == system], system)
    return [
        Completion(
            one.kind,
            one.prompt.category,
            one.prompt.text,
            said.answer,
            said.reasoning,
            (one.system or "") if name_systems else "",
            one.sample,
            said.ended,
        )
        for one, said in zip(wanted, parted, strict=True)
    ]


@dataclass(frozen=True)
class Generator:
    """How a model on this machine replies.

    tokens : of a reply at most. sampling : None for greedy replies. store : where replies are kept,
    None to make them anew each time.
    """

    lm: LanguageModel
    tokens: int
    batch_size: int
    sampling: Sampling | None = None
    store: ReplyStore | None = None

    def under(self, projection: Projection | None, advance: Advance = ignore) -> Replies:
        """Its replies under an edit, None for none."""

        def replies(prompts: Sequence[str], system: str | None) -> list[Parted]:
            return self._replies(replace(self.lm, system=system), projection, prompts, advance)

        return replies

    def key(
        self, lm: LanguageModel, projection: Projection | None, prompts: Sequence[str]
    ) -> dict[str, Any]:
        """What decides the replies, as `ReplyStore` is told."""
        key = {**model_key(lm, projection, prompts), "tokens": self.tokens}
        if self.sampling is not None:
            key["sampling"] = asdict(self.sampling)
        return key

    def make(
        self,
        lm: LanguageModel,
        projection: Projection | None,
        prompts: Sequence[str],
        advance: Advance = ignore,
        *,
        kept: KeptReplies | None = None,
        samples: Sequence[int] | None = None,
    ) -> list[Reply]:
        """The replies, whatever the store has. samples : see `Sampling.uniforms`."""
        with lm.ablate(projection):
            return generate(
                lm,
                prompts,
                max_new_tokens=self.tokens,
                batch_size=self.batch_size,
                sampling=self.sampling,
                samples=samples,
                advance=advance,
                done=None if kept is None else kept.known(),
                keep=None if kept is None else kept.keep,
            )

    def _replies(
        self,
        lm: LanguageModel,
        projection: Projection | None,
        prompts: Sequence[str],
        advance: Advance,
    ) -> list[Parted]:
        def make(kept: KeptReplies | None) -> list[Reply]:
            return self.make(lm, projection, prompts, advance, kept=kept)

        if self.store is None:
            replies = make(None)
        else:
            replies = self.store.get(self.key(lm, projection, prompts), prompts, make)
        return parted(lm, prompts[0], replies)


def parted(lm: LanguageModel, prompt: str, replies: Sequence[Reply]) -> list[Parted]:
    """Replies' reasoning and answers. prompt : one of those that they are to."""
    opened = lm.opens_reasoning(prompt)
    return [
        lm.part_reasoning(reply, opened=opened)._replace(ended=reply.ended) for reply in replies
    ]
