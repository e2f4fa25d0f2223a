"""docs/performance.md from the results of the benchmarks.

python benchmarks/table.py
"""

from __future__ import annotations

import json
from pathlib import Path

from common import RESULTS

PATH = Path(__file__).parents[1] / "docs" / "performance.md"
HEAD = """# Performance

Ratios of one run each, on the default model; made by the commands in `benchmarks/` and written
here by `python benchmarks/table.py`. "Paper protocol" is what the paper's code does, run by the
same benchmark: prompts one at a time with the output head and all hidden states, the model loaded
anew for each trial or layer, replies in batches of 16.

Not in the table yet: the sampler's trials on all 560 sets, the causal judge's search, layer
selection, and anything on a GPU.

| what | against | somatlas | baseline | ratio | aimed at |
|---|---|---|---|---|---|
"""


def main() -> None:
    lines, machines = [], set()
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text())
        machines.add(content["machine"])
        lines += [
            f"| {row['what']} | {row['against']} | {row['ours']} | {row['baseline']} | "
            f"{row['ratio']:.2f} | {row['target']:g} |"
            for row in content["rows"]
        ]
    PATH.write_text(f"{HEAD}{chr(10).join(lines)}\n\nMachine: {'; '.join(sorted(machines))}.\n")


if __name__ == "__main__":
    main()
