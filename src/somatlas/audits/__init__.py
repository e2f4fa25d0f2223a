"""What it costs to break a model: attacks under a plan fixed beforehand, measured and compared.

plan ──> parts of the prompts ──> attacks on val ──> choice ──> test replies ──> record, page
"""

from somatlas.audits.audit import Audit, audit

__all__ = ["Audit", "audit"]
