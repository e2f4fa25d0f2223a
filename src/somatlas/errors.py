"""The exceptions that mean "the input is at fault"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: the message is one sentence that says what is wrong, which value, and what to do.

    The command line prints it alone and ends with exit code 2. problems : the sentences, where
    there are several things to mend.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        listed = " ".join(f"({i}) {problem};" for i, problem in enumerate(problems, start=1))
        one = len(problems) == 1
        super().__init__(
            problems[0] if one else f"{len(problems)} things are wrong: {listed.rstrip(';')}"
        )


def without_password(text: str) -> str:
    """A text as it may be shown: a URL in it without the password that it may hold."""
    return re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", text)


class NotFittedError(InputError, AttributeError):
    """What only `fit` makes was asked for before it. An AttributeError too, so that `hasattr` is
    False, as scikit-learn's exception of this name is."""


class Problems:
    """What is wrong with several inputs, gathered so that all of it is said at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """An InputError or a file's error inside the block is kept, and the block left."""
        try:
            yield
        except InputError as error:
            self.add(error.problems)
        except OSError as error:
            if error.errno is None:
                raise
            place = f" {error.filename}" if error.filename else ""
            self.add([f"cannot read{place}: {error.strerror}"])

    def add(self, problems: Sequence[str]) -> None:
        """Keep what was not said yet."""
        self.found += [problem for problem in problems if problem not in self.found]

    def raise_found(self) -> None:
        """Raise one InputError of all that was found, if anything was."""
        if self.found:
            raise InputError(*self.found)
