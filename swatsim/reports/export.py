"""``swatsim.export``: what a step takes, node by node, as other tools read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from swatsim.arguments import (
    arguments,
    count_of,
    either,
    flag,
    instance_of,
    maybe,
    path_like,
    string,
    whole_number,
)
from swatsim.errors import ResultsError, shown, unknown
from swatsim.outputs import check_folder, refuse_existing, write_files
from swatsim.reports.astra_sim import as_text
from swatsim.reports.chakra import as_trace
from swatsim.reports.node_times import StepTimes, step_times
from swatsim.results import Results, as_csv, load

Form = Literal["latencies", "astra-sim", "chakra"]
FORMS: tuple[Form, ...] = get_args(Form)
#: Of a set of Chakra traces: a file each.
MAX_NPUS = 65_536


@arguments(
    ResultsError,
    source=either(path_like, instance_of(Results)),
    path=path_like,
    form=string,
    step=maybe(whole_number),
    baseline=flag,
    npus=whole_number,
    overwrite=flag,
)
def export(
    source: str | os.PathLike[str] | Results,
    path: str | os.PathLike[str],
    form: Form = "latencies",
    *,
    step: int | None = None,
    baseline: bool = False,
    npus: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write what each op of a step takes, and everything else, for another tool.

    - ``latencies``: CSV, a row a node, in the order in which a step runs them: its cycles, its time
      in us and ms (empty where the machine has no clock), the bytes that DRAM carries.
    - ``astra-sim``: a workload of ASTRA-sim 1, data-parallel, times in ns.
    - ``chakra``: MLCommons Chakra's execution traces, as ASTRA-sim 2 reads them: a file an NPU,
      ``PATH.0.et``, ``PATH.1.et``, .. The times are in us, exact cycles beside them.

    Cycles add up to what the results say of the step; so do times, rounded once.

    Parameters
    ----------
    source : path or Results
        A folder that `simulate` wrote, or results.
    path : path
        The file; of ``chakra`` what files' names begin with.
    form : {"latencies", "astra-sim", "chakra"}
    step : int, optional
        A step in the results; by default the first one.
    baseline : bool
        Of the baseline, not of the machine.
    npus : int
        Of ``chakra``: data-parallel replicas; of more than one, weight gradients are all-reduced.
    overwrite : bool
        Replace a file that is there; else refuse.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    ResultsError
        If there are no such results or step, a form needs what they don't have (a clock, the type
        of values), or it can't be written.
    """
    _check(form, npus)
    results = source if isinstance(source, Results) else load(source)
    times = step_times(results, step, baseline=baseline)
    target = Path(path)
    check_folder(target.parent)
    files = _files(times, target.name, form, npus, str(results.provenance.get("swatsim", "?")))
    if not overwrite:
        refuse_existing(target.parent, files)
    return write_files(target.parent, files)


def _check(form: str, npus: int) -> None:
    if form not in FORMS:
        raise ResultsError(unknown("form", form, FORMS), of_argument=True)
    if not 1 <= count_of(npus) <= (MAX_NPUS if form == "chakra" else 1):
        allowed = (
            f"must be 1 to {MAX_NPUS}" if form == "chakra" else "only chakra has a file an NPU"
        )
        raise ResultsError(f"npus={shown(npus)} is not allowed: {allowed}", of_argument=True)


def _files(step: StepTimes, name: str, form: Form, npus: int, version: str) -> Mapping[str, bytes]:
    if form == "chakra":
        content = as_trace(step, npus, _about(step, version))
        return {f"{name}.{npu}.et": content for npu in range(npus)}
    return {name: as_text(step).encode() if form == "astra-sim" else as_csv(_latencies(step))}


def _about(step: StepTimes, version: str) -> dict[str, str]:
    about = {
        "of": step.of,
        "swatsim": version,
        "trace_id": step.trace_id,
        "clock_mhz": str(step.clock_mhz),
        "cycles": str(step.cycles),
    }
    return about | ({"everything_else_left_out": step.left_out} if step.left_out else {})


def _latencies(step: StepTimes) -> list[dict[str, Any]]:
    return [
        {
            "trace": step.trace,
            "step": step.step,
            "images": step.samples,
            "machine": step.machine,
            "layer": node.layer,
            "op": node.op,
            "function": node.function,
            "phase": node.phase,
            "cycles": node.cycles,
            "time_us": node.cycles / step.clock_mhz if step.clock_mhz else None,
            "time_ms": node.cycles / (1000 * step.clock_mhz) if step.clock_mhz else None,
            "dram_bytes": node.dram_bytes,
        }
        for node in step.nodes
    ]
