"""One console for all tables: as wide as the terminal, and wide enough for whole tables in a file or pipe."""

import sys

from rich.console import Console


def make_console() -> Console:
    """Return a console on the standard output that never cuts a table short in a file or pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=200, file=sys.stdout)
