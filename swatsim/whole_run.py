"""A whole run from a trace in one go: whole batches, with their memory, and then all steps.

The simulator makes steps of whole batches of the images that are held, a report the run of the
steps that were recorded; neither imports the other. How the two errors of such a sample in two
stages, of images in a step and of steps in a run, become one interval: `swatsim.course`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from swatsim.arguments import (
    arguments,
    either,
    function,
    instance_of,
    maybe,
    path_like,
    several,
    whole_number,
)
from swatsim.errors import ConfigError
from swatsim.reports.estimate import checked_run, of_batches
from swatsim.reports.run_estimate import RunEstimate
from swatsim.reports.span import percent
from swatsim.simulator.abreast import Announce
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.interface import Machine
from swatsim.simulator.run import TRACE, WHERE, choice
from swatsim.simulator.whole_batch import Batches, simulate_batches
from swatsim.store import Where
from swatsim.tracefile import Trace, open_trace

#: How whole batches come about.
REPEATED = (
    "Whole batches, of {recorded} recorded images of each: these, over and over, make up the batch "
    "on the machine, its buffers and its DRAM. Assumed: they behave as a random sample of it"
)
EXTENDED = (
    "Ops of {share} of the cycles have batches that are too large to lay out: their cost is taken "
    "to grow by the same with every more images"
)
LONE = (
    "One image of each batch was recorded, which tells nothing of how images differ: what steps "
    "differ by, which has it in it, stands for that"
)


@arguments(
    ConfigError,
    trace=TRACE,
    run_steps=whole_number,
    cuts=several(whole_number, "whole numbers, the first steps of phases"),
    strata=maybe(whole_number),
    energy=either(path_like, instance_of(EnergyTable)),
    steps=maybe(several(whole_number, "whole numbers, of recorded steps")),
    workers=maybe(whole_number),
    progress=maybe(function),
    announce=maybe(function),
    store=WHERE,
)
def estimate_run(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    run_steps: int,
    *,
    cuts: Sequence[int] = (),
    strata: int | None = None,
    baseline: str | Machine | None = None,
    energy: str | os.PathLike[str] | EnergyTable = "45nm",
    steps: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    announce: Announce | None = None,
    store: Where = True,
) -> RunEstimate:
    """Return what a whole training run costs, in ms and pJ, from some images of some of its steps.

    Every recorded step runs with its whole batch, made of the images that the trace holds, on the
    machine and its baseline with their memory systems; everything else that a step does is in it
    (`swatsim.simulator.whole_batch` says how, and what is approximate). Then a recorded step stands
    for those nearest to it, as in `swatsim.estimate`. Intervals are of both: which images of a
    step, and which steps of the run were recorded.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name, `swatsim.machine(..)`, or an object of your own.
    run_steps : int
        Steps of the whole run, counted from 0; below 2**63.
    cuts, strata
        As in `swatsim.estimate`.
    baseline, energy, steps, workers, progress, announce, store
        As in `swatsim.simulate`.

    Returns
    -------
    RunEstimate

    Raises
    ------
    TraceError, WorkloadError, ConfigError
        As `swatsim.simulate` does.
    ResultsError
        As `swatsim.estimate` does; before anything is simulated.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    chosen = choice("steps", source.steps if steps is None else steps)
    checked_run(run_steps, chosen, strata, cuts)
    found = simulate_batches(
        *(source, machine),
        baseline=baseline,
        energy=energy,
        steps=chosen,
        workers=workers,
        progress=progress,
        announce=announce,
        store=store,
    )
    return of_batches(found.results, run_steps, strata, cuts, found.seen, list(_notes(found)))


def _notes(found: Batches) -> Iterator[str]:
    """Yield how whole batches came about; nothing where all images are held."""
    if not found.seen:
        return
    several_of = sorted({seen.many for parts in found.seen.values() for seen in parts})
    yield REPEATED.format(recorded=" or ".join(map(str, several_of)))
    if found.extended:
        yield EXTENDED.format(share=percent(found.extended))
    if several_of[0] == 1:
        yield LONE
