"""Prompts as vectors of the residual stream, in memory and on disk."""
