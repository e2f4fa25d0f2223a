"""Work in pieces: in one process, or on workers of a Ray cluster, with the same results."""

from somatlas.fleet.in_place import InPlace
from somatlas.fleet.work import Fleet, Prepared, SetUp, Work, deal, flat

__all__ = ["Fleet", "InPlace", "Prepared", "SetUp", "Work", "deal", "flat"]
