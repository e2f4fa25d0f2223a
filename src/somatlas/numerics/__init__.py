"""Numerics on plain arrays that scipy lacks: geometry, rates and how sure they are."""
