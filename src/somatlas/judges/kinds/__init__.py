"""The built-in kinds of judges, a module each with its `KIND`: the registry finds them here.

They are imported to be listed, so a model library is imported where a judge is made.
"""
