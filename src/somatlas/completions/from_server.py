"""Completions that a server makes; what it has said is kept and not asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from somatlas.completions.cache import ServedReplies
from somatlas.completions.make import Replies
from somatlas.errors import InputError
from somatlas.models.reasoning import Parted
from somatlas.models.sampling import Sampling, server_seeds
from somatlas.models.served import Endpoint
from somatlas.progress import Advance


@dataclass(frozen=True)
class Sender:
    """How a model on a server replies. tokens : of a reply at most."""

    server: Endpoint
    tokens: int
    sampling: Sampling
    kept: ServedReplies

    def replies(self, advance: Advance) -> Replies:
        """Its replies; raises InputError where the server leaves some out."""

        def replies(prompts: Sequence[str], system: str | None) -> list[Parted]:
            return self._replies(prompts, system, advance)

        return replies

    def _replies(
        self, prompts: Sequence[str], system: str | None, advance: Advance
    ) -> list[Parted]:
        server, how = self.server, self.sampling
        head = [{"role": "system", "content": system}] if system else []

        def reply(one: tuple[str, int]) -> Parted | None:
            prompt, seed = one
            messages = [*head, {"role": "user", "content": prompt}]

            def ask() -> Parted | None:
                return server.ask(
                    messages, self.tokens, temperature=how.temperature, top_p=how.top_p, seed=seed
                )

            key = [
                server.url,
                server.model,
                messages,
                self.tokens,
                how.temperature,
                how.top_p,
                seed,
            ]
            said = self.kept.get(key, ask)
            advance(1)
            return said

        made = server.each(reply, list(zip(prompts, server_seeds(prompts, how.seed), strict=True)))
        found = [said for said in made if said is not None]
        if len(found) < len(made):
            why = ", ".join(f"{name} {count}" for name, count in server.failures.items())
            raise InputError(
                f"{server.url} gave no reply of {server.model!r} to {len(made) - len(found)} of "
                f"{len(made)} prompts ({why}): what it gave is kept, see to the server and run it "
                "again"
            )
        return found
