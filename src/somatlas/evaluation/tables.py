"""Tables as plain text."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH = 140


def plain_table(first: str, *rest: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def table_text(table: Table) -> str:
    """The table as it is printed, without styles."""
    console = Console(file=io.StringIO(), width=_WIDTH, record=True)
    console.print(table)
    return console.export_text(styles=False).rstrip() + "\n"
