"""What makes directions of representations, and what they are."""
