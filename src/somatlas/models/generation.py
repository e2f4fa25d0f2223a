"""Completions, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from somatlas.ablation import RowProjections
from somatlas.models.batches import Batch, within_memory
from somatlas.models.first_step import prefilled
from somatlas.models.language_model import LanguageModel
from somatlas.models.memory import give_back
from somatlas.models.reply import Reply
from somatlas.models.sampling import Sampling
from somatlas.progress import Advance, ignore

# Told the rows of a batch that is done and the replies to them.
Keep = Callable[[Sequence[int], Sequence[Reply]], None]
# Told the text so far of the rows that still go on; says which of them need not.
Watch = Callable[[Mapping[int, str]], Collection[int]]

_WATCH_EVERY = 4  # tokens between two looks
_COMPACT_SHARE = 0.125  # of a batch's rows must have ended before they are taken out of it


class _Said(NamedTuple):
    """A reply as it is decoded. ended : by a token that ends replies."""

    ids: list[int]
    ended: bool


@torch.no_grad()
def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    ablations: RowProjections | None = None,
    watch: Watch | None = None,
    sampling: Sampling | None = None,
    samples: Sequence[int] | None = None,
    advance: Advance = ignore,
    done: Mapping[int, Reply] | None = None,
    keep: Keep | None = None,
    openings: Sequence[Sequence[int]] | None = None,
) -> list[Reply]:
    """The reply to each prompt, in the prompts' order, special tokens left out but for those that
    mark reasoning.

    Without sampling it is the model's own first choice at every token; sampling settings and
    repetition penalties of its generation config are not used either way. ablations : reply
    g * len(prompts) + i is that to prompt i under ablation g, which must be in force. watch : rows
    that it names end where they are; where the model's cache is not one that rows can be taken out
    of, it is not asked. samples : see `Sampling.uniforms`. `advance` is told the number of replies
    done. done : replies by row that are there already, and are not made again; not with ablations
    or a watch. keep : told each batch's replies. openings : token ids that the reply to each prompt
    is made to begin with; they are part of it, beside max_new_tokens.
    """
    known = done or {}
    empty = Reply("", ended=False)
    replies = [empty] * (len(prompts) * (1 if ablations is None else len(ablations)))
    for row, reply in known.items():
        replies[row] = reply
    advance(len(known))
    for rows, said in _decoded(
        lm,
        prompts,
        max_new_tokens,
        batch_size,
        ablations,
        watch,
        sampling,
        samples,
        known,
        openings,
    ):
        given = [()] * len(rows) if openings is None else [openings[r % len(prompts)] for r in rows]
        whole = [[*opening, *own.ids] for opening, own in zip(given, said, strict=True)]
        made = [
            Reply(text.strip(), ended=own.ended)
            for text, own in zip(lm.reply_texts(whole), said, strict=True)
        ]
        for row, reply in zip(rows, made, strict=True):
            replies[row] = reply
        if keep is not None:
            keep(rows, made)
        advance(len(rows))
    return replies


@torch.no_grad()
def first_reply_tokens(
    lm: LanguageModel, prompts: Sequence[str], count: int, batch_size: int
) -> list[list[int]]:
    """The first `count` token ids of the model's own greedy reply to each prompt.

    A reply that ends earlier has fewer; the token that ends it is left out.
    """
    replies: list[list[int]] = [[]] * len(prompts)
    for rows, said in _decoded(lm, prompts, count, batch_size):
        for row, own in zip(rows, said, strict=True):
            replies[row] = own.ids
    return replies


def _decoded(
    lm: LanguageModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    ablations: RowProjections | None = None,
    watch: Watch | None = None,
    sampling: Sampling | None = None,
    samples: Sequence[int] | None = None,
    known: Collection[int] = (),
    openings: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[list[int], list[_Said]]]:
    """Rows and their replies, batch by batch; rows that are known are left out."""
    asked = [row for row in range(len(prompts)) if row not in known]
    if not asked:
        return
    uniforms = None
    if sampling is not None:
        uniforms = sampling.uniforms(prompts, max_new_tokens, samples)
        uniforms = uniforms.repeat(1 if ablations is None else len(ablations), 1)
    wanted = [prompts[row] for row in asked]
    suffixes = None if openings is None else [openings[row % len(prompts)] for row in asked]
    batches = lm.batches(
        wanted, batch_size, suffixes=suffixes, ablations=ablations, room=max_new_tokens
    )

    def places(batch: Batch) -> list[int]:
        return [asked[row] for row in batch.rows] if known else batch.rows

    def decode(batch: Batch) -> list[_Said]:
        choose = _Choice(sampling, None if uniforms is None else uniforms[places(batch)])
        if batch.heads is None:
            return _by_transformers(lm, batch, max_new_tokens, choose)
        decoding = _Decoding(lm, batch, ablations, choose)
        return decoding.run(max_new_tokens, watch)

    for batch in batches:
        yield places(batch), within_memory(batch, decode)
        give_back()


class _Choice:
    """The next token of some of a batch's rows at a step, counted from 0."""

    def __init__(self, sampling: Sampling | None, uniforms: Tensor | None) -> None:
        self.sampling, self.uniforms = sampling, uniforms

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        if self.sampling is None or self.uniforms is None:
            return logits.argmax(dim=-1)
        return self.sampling.draw(logits, self.uniforms[list(rows), step])


class _Chosen(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Leaves transformers' own greedy decoding no token but the chosen one."""

    def __init__(self, choose: _Choice, width: int) -> None:
        self.choose, self.width = choose, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.width
        tokens = self.choose(scores, range(len(scores)), step)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _by_transformers(
    lm: LanguageModel, batch: Batch, max_new_tokens: int, choose: _Choice
) -> list[_Said]:
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=lm.model.generation_config.eos_token_id,
        pad_token_id=lm.pad_token_id,
    )
    output: Tensor = lm.model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([_Chosen(choose, batch.input_ids.shape[1])]),
    )
    stops = _stops(lm)
    rows = output[:, batch.input_ids.shape[1] :].tolist()
    ids = [list(takewhile(lambda token: token not in stops, row)) for row in rows]
    return [_Said(own, ended=len(own) < len(row)) for own, row in zip(ids, rows, strict=True)]


def _stops(lm: LanguageModel) -> set[int | None]:
    """The tokens that end a reply."""
    eos = lm.model.generation_config.eos_token_id
    return set(eos if isinstance(eos, list) else [eos])


class _Decoding:
    """One batch being decoded; rows that have ended are taken out of it."""

    def __init__(
        self,
        lm: LanguageModel,
        batch: Batch,
        ablations: RowProjections | None,
        choose: _Choice,
    ) -> None:
        self.lm, self.batch, self.ablations = lm, batch, ablations
        self.choose = choose
        self.replies: list[list[int]] = [[] for _ in batch.rows]
        self.live = list(range(len(batch.rows)))  # places in the batch of the rows still in it
        self.ended: set[int] = set()  # of those, the ones that need no further token
        self.stopped: set[int] = set()  # places where the model itself ended the reply
        self.stops = _stops(lm)

    def run(self, max_new_tokens: int, watch: Watch | None) -> list[_Said]:
        """The replies."""
        logits, self.cache = prefilled(self.lm, self.batch, self.ablations, max_new_tokens)
        self.mask = self.batch.attention_mask
        for step in range(1, max_new_tokens + 1):
            tokens = self.choose(logits, self.live, step - 1)
            for place, token in zip(self.live, tokens.tolist(), strict=True):
                if token in self.stops and place not in self.ended:
                    self.ended.add(place)
                    self.stopped.add(place)
                if place not in self.ended:
                    self.replies[place].append(token)
            if watch is not None and step % _WATCH_EVERY == 0:
                self._ask(watch)
            if len(self.ended) == len(self.live) or step == max_new_tokens:
                break
            logits = self.lm.logits(self._following(tokens), 1)[:, -1]
        return [_Said(ids, place in self.stopped) for place, ids in enumerate(self.replies)]

    def _ask(self, watch: Watch) -> None:
        going = [place for place in self.live if place not in self.ended]
        texts = self.lm.reply_texts([self.replies[place] for place in going])
        place_of = {self.batch.rows[place]: place for place in going}
        ended = watch(dict(zip(place_of, texts, strict=True)))
        self.ended.update(place_of[row] for row in ended)

    def _following(self, tokens: Tensor) -> dict[str, Any]:
        """The inputs of the next step, without the rows that have ended once they are many."""
        if len(self.ended) >= _COMPACT_SHARE * len(self.live):
            keep = [i for i, place in enumerate(self.live) if place not in self.ended]
            self.live = [self.live[i] for i in keep]
            self.ended.clear()
            rows = torch.tensor(keep)  # on the CPU: the layers' caches may lie on several devices
            self.mask, tokens = self.mask[rows], tokens[rows]
            self.cache.batch_select_indices(rows)
            if self.ablations is not None:
                self.ablations.assign([self.ablations.which[i] for i in keep])
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        return {
            "input_ids": tokens[:, None],
            "attention_mask": self.mask,
            "position_ids": self.mask.sum(dim=1, keepdim=True) - 1,
            self.batch.cache_argument: self.cache,
            "use_cache": True,
        }
