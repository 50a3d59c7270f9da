"""The entry point: verbs, and how every refusal ends: one line, exit code 2."""

from __future__ import annotations

import logging
import os
import sys

import click

from swatsim._version import __version__
from swatsim.cli.check import check
from swatsim.cli.footprint import footprint
from swatsim.cli.info import info
from swatsim.cli.machines import machines
from swatsim.cli.simulate import simulate
from swatsim.cli.synth import synth
from swatsim.errors import SwatsimError

BAD_INPUT = 2
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="swatsim")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done to standard error.")
def cli(verbose: bool) -> None:
    """What a sparse training run would cost on an accelerator that skips zeros."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="swatsim: %(levelname)s: %(message)s")


for verb in (simulate, info, check, machines, footprint, synth):
    cli.add_command(verb)


def main() -> None:
    """Run the command line and exit: 0 if all went well, 2 on bad input."""
    try:
        # not cli.main: it ends a command whose reader has gone with exit code 1
        with cli.make_context("swatsim", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(BAD_INPUT)
    except SwatsimError as error:
        _stop(str(error), BAD_INPUT)
    except click.ClickException as error:
        _stop(f"{error.format_message()} (see swatsim --help)", BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        _stop("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _stop(
            "out of memory: simulate fewer steps at a time (--step), or smaller layers", BAD_INPUT
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "output: "
        _stop(f"{where}{error.strerror or error}", BAD_INPUT)


def _stop(message: str, code: int) -> None:
    line = " ".join(message.split())
    click.echo(f"swatsim: error: {line}", err=True)
    sys.exit(code)
