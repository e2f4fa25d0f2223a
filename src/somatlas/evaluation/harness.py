"""Tasks of lm-evaluation-harness on the model at hand, through its Python API."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from somatlas.errors import InputError
from somatlas.models.language_model import LanguageModel

# The first of a task's metrics that a value of each example is kept for.
_USUAL_METRICS = ("acc_norm", "acc", "exact_match", "f1", "bleu", "perplexity")


class Harness:
    """Tasks by name. folder : of further task definitions (YAML). limit : examples of a task.

    Raises InputError where the extra is not installed or a task is not known.
    """

    def __init__(
        self, tasks: Sequence[str], folder: str | None, limit: int | None, seed: int
    ) -> None:
        try:
            from lm_eval.tasks import TaskManager
        except ModuleNotFoundError:
            raise InputError(
                "tasks need lm-evaluation-harness: pip install 'somatlas[tasks]'"
            ) from None
        if folder is not None and not Path(folder).is_dir():
            wrong = "is no folder" if Path(folder).exists() else "does not exist"
            raise InputError(f"task folder {folder} {wrong}")
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.tasks, self.limit, self.seed = list(tasks), limit, seed
        self.manager = TaskManager(include_path=folder)
        unknown = [task for task in tasks if not self.manager.match_tasks([task])]
        if unknown:
            raise InputError(f"lm-evaluation-harness has no task {unknown[0]!r}")

    def scores(self, lm: LanguageModel, batch_size: int) -> dict[str, list[float]]:
        """Task and metric -> a value of each example, in the task's order, of lm as it is now."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(
            pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=batch_size, max_length=None
        )
        try:
            results: Any = simple_evaluate(
                model=wrapped,
                tasks=self.tasks,
                task_manager=self.manager,
                limit=self.limit,
                bootstrap_iters=0,
                log_samples=True,
                random_seed=self.seed,
                numpy_random_seed=self.seed,
                torch_random_seed=self.seed,
                fewshot_random_seed=self.seed,
            )
        except (OSError, ConnectionError, ValueError, FileNotFoundError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"the tasks cannot be run ({first})") from None
        finally:
            lm.tokenizer.padding_side = "left"
        found: dict[str, list[float]] = {}
        for task, samples in results["samples"].items():
            filters = list(dict.fromkeys(sample.get("filter") for sample in samples))
            for name in filters:  # each reads the answers in its own way
                own = [sample for sample in samples if sample.get("filter") == name]
                metric = _metric(own[0])
                if metric is None:
                    continue
                title = metric if len(filters) == 1 else f"{metric}, {name}"
                ordered = sorted(own, key=lambda sample: int(sample["doc_id"]))
                found[f"{task} ({title})"] = [float(sample[metric]) for sample in ordered]
        return found


def _metric(sample: dict[str, Any]) -> str | None:
    return next((m for m in _USUAL_METRICS if isinstance(sample.get(m), int | float)), None)
