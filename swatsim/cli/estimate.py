"""``swatsim estimate``: the whole run from a few steps, the whole batch from a few images."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from swatsim.cli.as_json import JSON
from swatsim.cli.estimated import print_run, print_run_json
from swatsim.cli.options import DTYPE, ENERGY, PRESETS, SETTINGS, STORE, parse
from swatsim.cli.progress import progress
from swatsim.errors import ConfigError
from swatsim.reports.estimate import estimate as of_run
from swatsim.reports.run_estimate import RunEstimate
from swatsim.results import load
from swatsim.tracefile.schema import MANIFEST

#: What an estimate has no use for, by what it is of; as parameters and as options are called.
_RESULTS, _IMAGES = "an estimate from results", "an estimate of images"
UNUSED: Mapping[str, tuple[str, ...]] = {
    "an estimate of a run": (),
    _RESULTS: ("settings", "baseline", "dtype", "energy", "steps", "store"),
    _IMAGES: ("run_steps", "cuts", "strata", "baseline", "dtype", "energy"),
}
OPTIONS = {
    **{"settings": "--set", "steps": "--step", "cuts": "--cut", "name": "--machine"},
    "store": "--no-store",
}


@click.command()
@click.argument("source", metavar="TRACE_OR_RESULTS", type=click.Path())
@click.option("--run-steps", type=int, metavar="TOTAL", help="Steps of the whole run.")
@click.option("-m", "--machine", "name", help="Of a trace, a preset: {known}.", **PRESETS)
@SETTINGS
@click.option(
    "--cut",
    "cuts",
    type=int,
    multiple=True,
    metavar="STEP",
    help="A phase begins at this step, exactly: 120 of a run that is dense for 120 steps. May be "
    "repeated.",
)
@click.option(
    "--strata",
    type=int,
    help="Cut the run at its largest jumps only, into at most so many phases; 1: never.",
)
@click.option(
    "--baseline",
    help="Compare with this preset, not with the machine skipping nothing: {known}.",
    **PRESETS,
)
@DTYPE
@ENERGY
@click.option("--step", "steps", type=int, multiple=True, help="Of a trace only this step.")
@click.option("--images", is_flag=True, help="Compute cycles of a trace's whole batches, by op.")
@STORE
@click.option("--all", "whole", is_flag=True, help="Show every column.")
@JSON
@click.pass_context
def estimate(context: click.Context, /, **options: Any) -> None:
    """Estimate a whole run, or whole batches.

    TRACE -m MACHINE --run-steps TOTAL: time, energy and speed-up of a run of TOTAL steps of whole
    batches, memory and everything else included, from the steps and images that the trace holds.

    RESULTS --run-steps TOTAL: the same of results that swatsim simulate -o wrote, of the images
    that they hold.

    TRACE --images -m MACHINE: compute cycles of whole batches, op by op, without memory.

    All with 95 % confidence intervals, and with what they assume.
    """
    given = {
        name
        for name in options
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if options["images"]:
        _refuse(_IMAGES, given)
        _images(options)
    elif options["name"] is None:
        _check_results(options)
        _refuse(_RESULTS, given)
        _of_results(options)
    else:
        _run(options)


def _refuse(what: str, given: Collection[str]) -> None:
    for name in UNUSED[what]:
        if name in given:
            option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{option} is not allowed: {what} has none; leave it out")


def _check_results(options: Mapping[str, Any]) -> None:
    if options["run_steps"] is None:
        raise ConfigError(
            "neither --run-steps nor --images is given: --run-steps TOTAL estimates a run, from "
            "results or with -m MACHINE from a trace; --images -m MACHINE a trace's batches"
        )
    if (Path(options["source"]) / MANIFEST).is_file():
        raise ConfigError(
            f"{options['source']} is a trace, and no machine is given: add -m MACHINE (see swatsim "
            "machines)"
        )


def _of_results(options: Mapping[str, Any]) -> None:
    run = of_run(load(options["source"]), options["run_steps"], options["strata"], options["cuts"])
    _print(run, f"swatsim report {shlex.quote(options['source'])}", options)


def _run(options: Mapping[str, Any]) -> None:
    if options["run_steps"] is None:
        raise ConfigError("--run-steps is missing: give the steps of the whole run, or --images")
    # kernels, which an estimate from results does without
    from swatsim.cli.foreseen import announcing
    from swatsim.cli.stored import looking
    from swatsim.simulator.machines import machine
    from swatsim.whole_run import estimate_run

    dtype, baseline = options["dtype"], options["baseline"]
    settings = (*options["settings"], *([f"dtype={dtype}"] if dtype else []))
    chosen = machine(options["name"], **parse(settings))
    if dtype and baseline:
        baseline = machine(baseline, dtype=dtype)
    with looking(options["store"]) as store, progress("simulating", "ops") as show:
        run = estimate_run(
            options["source"],
            chosen,
            options["run_steps"],
            cuts=options["cuts"],
            strata=options["strata"],
            baseline=baseline,
            energy=options["energy"],
            steps=list(options["steps"]) or None,
            progress=show,
            announce=announcing(store),
            store=store,
        )
    source, name = (shlex.quote(options[it]) for it in ("source", "name"))
    _print(run, f"swatsim simulate {source} -m {name}", options)


def _print(run: RunEstimate, following: str, options: Mapping[str, Any]) -> None:
    if options["as_json"]:
        print_run_json(run)
    else:
        print_run(run, following, options["whole"])


def _images(options: Mapping[str, Any]) -> None:
    # kernels, as above
    from swatsim.cli.estimated_images import print_images, print_images_json
    from swatsim.cli.foreseen import announcing
    from swatsim.cli.stored import looking
    from swatsim.simulator.images import estimate_images
    from swatsim.simulator.machines import machine

    if options["name"] is None:
        raise ConfigError("--images needs --machine NAME: see swatsim machines")
    chosen, steps = machine(options["name"], **parse(options["settings"])), options["steps"]
    with looking(options["store"]) as store, progress("simulating", "ops") as show:
        found = estimate_images(
            options["source"],
            chosen,
            steps=list(steps) or None,
            progress=show,
            announce=announcing(store),
            store=store,
        )
    if options["as_json"]:
        print_images_json(found)
    else:
        print_images(found)
