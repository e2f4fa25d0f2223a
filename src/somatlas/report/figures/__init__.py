"""Figures, each a function from plain arrays."""
