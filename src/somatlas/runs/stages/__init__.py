"""The stages of a run: each reads the files of the ones before, calls, and writes its own.

`somatlas.runs.contents` says which files those are, `somatlas.runs.pipeline` their order; what is
drawn and printed of them is the room report's.
"""
