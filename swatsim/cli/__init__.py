"""The command line: one verb a file, thin. Only this package prints, and only `main` exits.

Each verb imports what it needs when it runs, so that ``swatsim --help`` is quick.
"""

from swatsim.cli.main import main

__all__ = ["main"]
