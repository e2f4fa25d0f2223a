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

| what | against | somatlas | baseline | ratio | aimed at |
|---|---|---|---|---|---|
"""


TAIL = """
What is out of reach here, and why:

- **The map.** MiniSom takes about 140 us a step on this machine; one pass over the weights (16 x
  4096 float64, from cache) takes 13 us, and every step needs all of them to find the best-matching
  unit. A form that works on inner products of blocks of samples instead was tried: its weights were
  equal to 1e-13, and it was no faster. On machines whose Python is slower against their memory the
  ratio is higher.
- **Memory.** The imports take 0.5 GB, the weights are kept a second time in the order that the CPU
  multiplies in (0.26 GB, for models under 2 GB), and pages of the mapped weight file count too. The
  vectors themselves never take more than a shard.
- **GPU.** Trials a minute on a GPU, many a batch, were not measured: none was at hand. `--lanes`
  batches trials on any device.
- **The demo** takes minutes where 4 were aimed at; README says how many. Over half of it is
  decoding: the search's replies, the test replies of 96 tokens under three conditions, and the
  replies over k of the atlas.
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
    machine = f"Machine: {'; '.join(sorted(machines))}."
    PATH.write_text(f"{HEAD}{chr(10).join(lines)}\n\n{machine}\n{TAIL}")


if __name__ == "__main__":
    main()
