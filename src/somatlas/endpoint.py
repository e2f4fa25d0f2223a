"""An OpenAI-compatible server (vLLM, llama.cpp, TGI, transformers serve): questions in, texts out.

The key comes from the environment (SOMATLAS_API_KEY, else OPENAI_API_KEY) and goes nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from somatlas.errors import InputError

Messages = list[dict[str, str]]
Item = TypeVar("Item")
Result = TypeVar("Result")


class UnknownShapeError(Exception):
    """The server does not take a response_format."""


@dataclass
class Endpoint:
    """One model on a server, asked greedily by several threads.

    url : ends in /v1 as a rule. timeout_s : of one try. retries : after a time-out, a lost
    connection, 429 or a 5xx, with growing pauses (the client library's, which heeds Retry-After).
    usage : tokens sent and received so far. failures : what went wrong, and how often.
    """

    url: str
    model: str
    timeout_s: float = 60.0
    concurrency: int = 8
    retries: int = 4
    usage: dict[str, int] = field(default_factory=lambda: {"sent": 0, "received": 0})
    failures: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"endpoint {self.url!r} is no http address, such as http://host:8000/v1"
            )
        if parts.username or parts.password:
            raise InputError("the endpoint's address must not hold a key: set SOMATLAS_API_KEY")
        try:
            import openai
        except ModuleNotFoundError:
            raise InputError(
                "endpoints need one more package: pip install 'somatlas[endpoint]'"
            ) from None
        self._errors: Any = openai
        self._lock = Lock()
        self._client: Any = openai.OpenAI(
            base_url=self.url,
            api_key=_key(),
            timeout=self.timeout_s,
            max_retries=self.retries,
        )

    def ask(
        self,
        messages: Messages,
        max_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        shape: Mapping[str, Any] | None = None,
    ) -> str | None:
        """The answer, or None where the server gave none after all tries.

        shape : a response_format. Raises InputError for what no further try would mend: a wrong
        key, model or address; and UnknownShapeError where the server will not take the shape.
        """
        openai = self._errors
        options: dict[str, Any] = {} if shape is None else {"response_format": shape}
        answer: Any = None
        how = "no valid answer"
        try:
            answer = self._client.chat.completions.create(
                model=self.model,
                messages=messages,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=0,
                **options,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise InputError(
                f"{self.url} refuses the key (HTTP {error.status_code}): set SOMATLAS_API_KEY"
            ) from None
        except openai.NotFoundError:
            raise InputError(
                f"{self.url} has no model {self.model!r}, or is no /v1 address"
            ) from None
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if shape is not None:
                raise UnknownShapeError from None
            how = "bad request"
        except openai.APITimeoutError:
            how = "time-out"
        except openai.APIConnectionError:
            how = "no connection"
        except openai.APIStatusError as error:
            how = f"HTTP {error.status_code}"
        except (openai.APIError, ValueError, TypeError):
            pass
        text = self._text(answer)
        if text is None:
            self.note(how)
        return text

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """work on every item, `concurrency` at a time, in order."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(work, items))

    def note(self, failure: str) -> None:
        """Count a failure."""
        with self._lock:
            self.failures[failure] = self.failures.get(failure, 0) + 1

    def _text(self, answer: Any) -> str | None:
        usage, choices = getattr(answer, "usage", None), getattr(answer, "choices", None)
        with self._lock:
            self.usage["sent"] += getattr(usage, "prompt_tokens", 0) or 0
            self.usage["received"] += getattr(usage, "completion_tokens", 0) or 0
        try:
            text = choices[0].message.content  # type: ignore[index]
        except (TypeError, IndexError, AttributeError):
            return None
        return text if isinstance(text, str) else None


def _key() -> str:
    """What the environment holds; the client wants some text even where no key is needed."""
    return os.environ.get("SOMATLAS_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
