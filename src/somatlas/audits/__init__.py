"""What it costs to break a model: attacks under a plan fixed beforehand, measured and compared.

plan ──> parts of the prompts ──> attacks on val ──> choice ──> test replies ──> record, card
"""
