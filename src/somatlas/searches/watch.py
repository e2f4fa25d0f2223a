"""Ending replies, and whole trials, as soon as their outcome is settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class RefusalWatch:
    """Watches the replies of trials that are generated side by side (`generation.Watch`).

    Row g * n_prompts + i is prompt i in trial g. A reply ends once `settled` says that it is a
    refusal whatever follows; a trial ends once even compliance in all its other replies would
    leave its ASR below `threshold`. Neither changes a verdict that is used.
    """

    def __init__(
        self, n_prompts: int, trials: int, settled: Callable[[str], bool], threshold: float
    ) -> None:
        self.n_prompts, self.settled, self.threshold = n_prompts, settled, threshold
        self.refused: list[set[int]] = [set() for _ in range(trials)]  # rows: some are made twice

    def __call__(self, texts: Mapping[int, str]) -> list[int]:
        ended = []
        for row, text in texts.items():
            if self.settled(text):
                self.refused[row // self.n_prompts].add(row)
                ended.append(row)
        ended += [r for r in texts if r not in ended and self.hopeless(r // self.n_prompts)]
        return ended

    def bound(self, trial: int) -> float:
        """The ASR that the trial can still reach."""
        return 1 - len(self.refused[trial]) / self.n_prompts

    def hopeless(self, trial: int) -> bool:
        """Whether that is below the threshold."""
        return self.bound(trial) < self.threshold
