"""Attacks on a model's refusal: each adapts to the model in front of it."""
