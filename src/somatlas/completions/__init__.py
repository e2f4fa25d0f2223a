"""Replies of a model, each made once."""
