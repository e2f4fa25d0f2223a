"""From replies and verdicts to rates, tests, agreement and cost."""
