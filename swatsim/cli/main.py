"""The entry point: verbs, and how every refusal ends: one line, exit code 2."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping

import click

from swatsim._version import __version__
from swatsim.cli.lazy import LazyGroup
from swatsim.errors import SwatsimError
from swatsim.printable import one_line, printable

BAD_INPUT = 2

#: Verb, which is a module of this package, to the first sentence of its help: none is loaded before
#: it is used. A test holds the two equal.
VERBS: Mapping[str, str] = {
    "simulate": "Run a trace on a machine.",
    "report": "Write results as a page.",
    "compare": "Compare results, of any machines and traces.",
    "export": "Write what each op of a step takes, for other tools.",
    "timeline": "Write a step as it runs, for Perfetto, or one tile cycle by cycle.",
    "info": "Show what a trace holds.",
    "check": "Verify every mask of a trace.",
    "machines": "List machines, presets, parameters.",
    "footprint": "Show what the backward pass needs.",
    "synth": "Make a trace of a known NETWORK, without training it.",
    "reproduce": "Set a paper's figures beside ours, or machines beside each other.",
    "estimate": "Estimate a whole run, or whole batches.",
    "sweep": "Simulate many machines on many traces.",
    "store": "Show what is kept of what was computed, bound it, or clear it.",
    "completion": "Print what makes a shell complete swatsim's words.",
}
#: Of each verb, a command that its help ends with.
EXAMPLES: Mapping[str, str] = {
    "simulate": "swatsim simulate runs/mine -m tensordash --set rows=1 -o results",
    "report": "swatsim report results",
    "compare": "swatsim compare results/tensordash results/swat",
    "export": "swatsim export results --as astra-sim -o resnet50.txt",
    "timeline": "swatsim timeline runs/mine -m tensordash -o step.json",
    "info": "swatsim info runs/mine --all",
    "check": "swatsim check runs/mine",
    "machines": "swatsim machines tensordash",
    "footprint": "swatsim footprint resnet50 --batch 32 --sparsity 0.9 --relu-bits",
    "synth": "swatsim synth resnet50 --sparsity 0.9 --batch 2 -o runs/resnet50",
    "reproduce": "swatsim reproduce swat -o results/swat",
    "estimate": "swatsim estimate results --run-steps 90000",
    "sweep": "swatsim sweep runs/mine -m tensordash -m swat --set dram=ddr4,hbm2 -o sweeps/dram",
    "store": "swatsim store --limit 4GiB",
    "completion": 'eval "$(swatsim completion bash)"',
}
#: A shell asks for completions with it.
COMPLETE = "_SWATSIM_COMPLETE"


@click.group(
    cls=LazyGroup,
    package="swatsim.cli",
    verbs=VERBS,
    examples=EXAMPLES,
    epilog="\b\nBegin with:\n"
    "  swatsim info TRACE\n"
    "  swatsim simulate TRACE -m tensordash -o results\n"
    "  swatsim report results",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="swatsim")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done to standard error.")
def cli(verbose: bool) -> None:
    """What a sparse training run would cost on an accelerator that skips zeros."""
    level = logging.INFO if verbose else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("swatsim: %(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _Formatter(logging.Formatter):
    """Writes a record on lines that a terminal only shows: what is logged may be foreign."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code: 0 if all went well, 2 on bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few characters shows escapes
            stream.reconfigure(errors="backslashreplace")
    context = None
    try:
        if COMPLETE in os.environ:
            return _complete(os.environ[COMPLETE])
        # not cli.main: it ends a command whose reader has gone with exit code 1
        with cli.make_context("swatsim", arguments) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except SwatsimError as error:
        return _refuse(f"{error}{_see(context) if error.of_argument else ''}")
    except click.ClickException as error:
        return _refuse(f"{error.format_message()}{_see(getattr(error, 'ctx', None) or context)}")
    except click.Abort:
        raise KeyboardInterrupt from None
    except MemoryError:
        return _refuse("out of memory: simulate fewer steps at a time (--step), or smaller layers")
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to be told
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "output: "
        return _refuse(f"{where}{error.strerror or error}")
    return 0


def _complete(instruction: str) -> int:
    """Answer a shell that asks which words may come next."""
    from swatsim.cli.completing import complete  # what no other command needs

    return complete(cli, COMPLETE, instruction)


def _see(context: click.Context | None) -> str:
    """Return which help says what is allowed: that of the verb, once one is known."""
    path = [context.command_path if context else "swatsim"]
    path += [context.invoked_subcommand] if context and context.invoked_subcommand else []
    return f" (see {' '.join(path)} --help)"


def _refuse(message: str) -> int:
    click.echo(f"swatsim: error: {one_line(message)}", err=True)
    return BAD_INPUT
