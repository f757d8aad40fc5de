"""How long work takes: what is done of it, since when, and what is left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

HOUR_S = 3600.0


def progress(console: Console) -> Progress:
    """A bar a task; time left is from the speed of the last hour, as runs come in bursts."""
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=console, speed_estimate_period=HOUR_S)
