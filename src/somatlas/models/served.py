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
from somatlas.files import writable
from somatlas.models.reasoning import Parted, part_reasoning

Messages = list[dict[str, str]]
Item = TypeVar("Item")
Result = TypeVar("Result")

_CHECK_S = 10.0  # that a server has to answer at all
_REASONING = ("reasoning", "reasoning_content")  # vLLM's field, and its older name, SGLang's too


class UnknownShapeError(Exception):
    """The server does not take a response_format."""


@dataclass
class Endpoint:
    """One model on a server, asked by several threads.

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
        seed: int = 0,
        shape: Mapping[str, Any] | None = None,
    ) -> Parted | None:
        """The answer and the reasoning before it, or None where the server gave none at all.

        seed : of what the server draws. shape : a response_format. Raises InputError for what no
        further try would mend: a wrong key, model or address; and UnknownShapeError where the
        server will not take the shape.
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
                seed=seed,
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
        self._count(getattr(answer, "usage", None))
        said = _said(answer)
        if said is None:
            self.note(how)
        return said

    def check(self) -> None:
        """Raise InputError where nothing answers at the address, or it refuses the key."""
        openai = self._errors
        try:
            self._client.with_options(max_retries=0, timeout=_CHECK_S).models.list()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise InputError(
                f"{self.url} refuses the key (HTTP {error.status_code}): set SOMATLAS_API_KEY"
            ) from None
        except openai.APIConnectionError:  # of which a time-out is one
            raise InputError(
                f"nothing answers at {self.url}: start the server, or mend --endpoint-url"
            ) from None
        except (openai.APIError, ValueError, TypeError):
            pass  # it answers; not every server lists its models

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """work on every item, `concurrency` at a time, in order."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(work, items))

    def note(self, failure: str) -> None:
        """Count a failure."""
        with self._lock:
            self.failures[failure] = self.failures.get(failure, 0) + 1

    def _count(self, usage: Any) -> None:
        with self._lock:
            self.usage["sent"] += getattr(usage, "prompt_tokens", 0) or 0
            self.usage["received"] += getattr(usage, "completion_tokens", 0) or 0


def _said(answer: Any) -> Parted | None:
    """What a server's answer says; its reasoning stands in a field of its own or in the text.

    A reply that was cut while it reasons comes with reasoning and without a text.
    """
    try:
        message = answer.choices[0].message
    except (TypeError, IndexError, AttributeError):
        return None
    text = getattr(message, "content", None)
    fields = (getattr(message, name, None) for name in _REASONING)
    reasoning = next((field for field in fields if isinstance(field, str) and field), None)
    if not isinstance(text, str):
        return None if reasoning is None else Parted(writable(reasoning).strip(), "")
    text = writable(text)  # one that was cut may end in half of a character
    if reasoning is None:
        return part_reasoning(text)
    return Parted(writable(reasoning).strip(), text.strip())


def _key() -> str:
    """What the environment holds; the client wants some text even where no key is needed."""
    return os.environ.get("SOMATLAS_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
