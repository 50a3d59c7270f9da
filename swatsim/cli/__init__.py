"""The command line: one verb a file, thin. Only this package prints, and only `ending` exits.

A verb's module is loaded when the verb is used (`lazy`), so that ``swatsim --help`` is quick; what
it imports stands at its top.
"""

from swatsim.cli.ending import main

__all__ = ["main"]
