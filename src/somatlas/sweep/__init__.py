"""Many runs over the values of some settings: the paper's ablation studies in one command.

axes ──> plan ──> points: ordinary runs, what they share made once ──> results ──> files, figure
"""

from somatlas.sweep.carry_out import Swept, sweep
from somatlas.sweep.plan import Plan, make_plan

__all__ = ["Plan", "Swept", "make_plan", "sweep"]
