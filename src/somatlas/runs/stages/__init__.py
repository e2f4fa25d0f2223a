"""The stages of a run: each reads the files of the ones before and writes its own.

| stage     | writes                                                              |
|-----------|---------------------------------------------------------------------|
| represent | representations/                                                    |
| layers    | layers.json                                                         |
| map       | map.safetensors, map.json, map.png, directions.safetensors,         |
|           | single_direction.safetensors                                        |
| search    | study.db, search.json, map.png (the chosen ranks outlined)          |
| ablate    | completions/base.jsonl, sd.jsonl, md.jsonl, ablate.json             |
| judge     | verdicts.jsonl, judge.json                                          |
| cost      | cost.json                                                           |
| atlas     | atlas.json                                                          |

After judge `somatlas.report.summary` writes evaluation.json and table.txt, and after atlas
`somatlas.report.page` writes report.html and figures/.
"""
