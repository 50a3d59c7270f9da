"""The command line: one verb a file, thin. Only this package prints, and only `ending` exits.

Each verb imports what it needs when it runs, so that ``swatsim --help`` is quick.
"""

from swatsim.cli.ending import main

__all__ = ["main"]
