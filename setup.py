"""What an index such as PyPI shows: the README, whose links lead to where the project lies.

All else is in setup.cfg. On an index no file lies beside the README.
"""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
#: A relative target of a Markdown link or picture.
RELATIVE = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")


def shown() -> str:
    """Return the README with its relative links made whole."""
    config = ConfigParser()
    config.read(HERE / "setup.cfg")
    home = config["metadata"]["url"]
    return RELATIVE.sub(lambda it: f"{home}/{it[1]}", (HERE / "README.md").read_text("utf-8"))


setup(long_description=shown(), long_description_content_type="text/markdown")
