"""``python -m swatsim``."""

from swatsim.cli import main

main()
