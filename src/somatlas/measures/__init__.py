"""What an ablation does inside a model: where to cut, drift, leaks; the account of a model."""
