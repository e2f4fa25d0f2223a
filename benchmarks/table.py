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
- **GPU.** Nothing was measured on one: none was at hand. `python benchmarks/gpu.py` is the one
  command that prints the table (Llama 3's 8B shape with random weights; trials a minute at 1, 4, 8
  and 16 a batch, decoding against the card's bandwidth, representations against its product rate).
  What is said here is a *prediction* from a profile of the same code on a CPU: a decoding step
  launches about 56 operations a block and 9 more for each of the two writes that an ablation
  projects, which makes 2,400 for the 8B shape. At 5 us a launch that is 12 ms a step, where
  reading 16 GB of weights at an H100's 3.35 TB/s (its data sheet) takes 4.8 ms: a share of 0.4,
  the host being what limits it (aimed at: 0.5). Trials side by side share the launches, so that 64
  trials of 41 prompts x 48 tokens, 8 a batch, would take some ten seconds of decoding and prompts
  (aimed at: five minutes). CUDA graphs or a compiled step, which take the launches away, are not
  built.
- **The layer rule.** Its 2.5 times with the same layer in 30 of 30 seeds is out of reach on the
  default model: many layers stand near the rule's KL of 0.1 ([findings](findings.md)), so most
  must be measured on all prompts. What is exact: the KL of every layer first, and refusal on all
  prompts only of the layers that it leaves, 1.5 times fewer prompts. Leaving out layers by
  confidence intervals that still kept the layer in 100 of 100 draws saved 1.14 times.
- **The demo** takes 6 min 43 s where 4 minutes were aimed at, on two cores of 99 G multiply-adds a
  second; the commit before this work 7 min 31 s, for less: it judged no topic and made no controls
  of the harmless side and of single directions, which take 130 s now. Table and page are there
  after 4 min 10 s (represent 27 s, layers 33, search 112, ablate 67, judge 7), before the atlas
  (146 s). What is left is work, not waiting: 0.64 of the processor's rate of products over the
  whole time, 0.73 in a step of decoding. Of the 25 T multiply-adds a quarter are decoding, a fifth
  reading prompts, a fifth reading replies again to tell whether they are answers: at the full rate
  of products they take 250 s, so four minutes take less work, not better code. *What did not
  pay*: rows that wait taking the places of replies that have ended (237 steps of decoding in place
  of 384 for the test replies, 69 s in place of 72, as a step of 62 rows takes longer than one of
  38; and who shares a batch with whom, and so where a search's trial is ended, would depend on its
  lanes); one query for the three heads that share keys (attention 7 % faster, a step 1 %). *Not
  tried*: scoring what replies begin alike with once, a quarter of the tokens that are scored.
  `--dtype bfloat16`, where the processor has units for it, makes a round of refusals 1.4 times as
  fast; the default stays float32: in bfloat16 a reply depends on which others share its batch, so
  that a run resumed, or made by several workers, would be another.
- **Beside two busy programs** the demo took 2.16 times as long as alone (16 min 4 s), when alone it
  took 7 min 27 s.
- **Its memory** is 3.6 GB at most. Modules and weights, held twice, take 1.8; a batch of 128
  replies some 1.2, of which 0.7 are keys and values; prompts' keys and values that the check of
  answers keeps, 0.26.
- **The search** takes 112 s; the commit before this work took 113 when it was measured: replies are
  as long as the test's now, and their topic is judged. 1.5 times its speed was aimed at.
- **Two workers on Ray** do 0.84 of twice one's work (aimed at: 0.85) on a small model: layers and
  the search have few pieces, the judge's are short. One worker costs 2 % beside Ray's start.
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
