"""Rows of results, put together: per layer and op, per op, and for the whole training step.

Plain rows, not frames: a table of a command that ends in two seconds can't wait a third of one for
pandas. ``pandas.DataFrame(rows)`` makes a frame of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import nan
from typing import Any, TypeVar

from swatsim.columns import Role, label
from swatsim.counters import BUCKETS
from swatsim.reports.comparable import check_comparable
from swatsim.reports.comparable import label_of as label_of
from swatsim.reports.span import span_of
from swatsim.reports.totals import AND as AND
from swatsim.reports.totals import Row as Row
from swatsim.reports.totals import Rows, add_up, beside, clocked, nothing_of
from swatsim.reports.totals import ideal_cycles as ideal_cycles
from swatsim.reports.totals import quotient as quotient
from swatsim.reports.totals import speed_ups as speed_ups
from swatsim.results import Results
from swatsim.table import Key, behind, column_of, grouped, where
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER, PHASES

#: The row of a table that sums up all that a step does; that of its layers alone.
STEP, LAYERS = "step", "layers"

#: What of a table's sums is also shown of one step.
PER_STEP = (
    *("cycles", "cycles_compute", "energy_pj", "dram_bytes"),
    *("macs_dense", "macs_effectual"),
)
#: What it is, wherever it is headlined.
OF_IDEAL = (
    "the time that as many multipliers would take at this clock for the MACs whose "
    "factors are both non-zero, over the time taken"
)
Result = TypeVar("Result")


class Summary(Results):
    """Results with their totals, each of which is computed once, when it is first asked for.

    Whatever takes results takes a summary of them; `summarise` makes one. It is frozen, and its
    rows must not be changed any more.
    """

    def __init__(self, results: Results) -> None:
        # its rows were looked at when the results were made
        own = {"rows": results.rows, "provenance": results.provenance, "_computed": {}}
        self.__dict__.update(own)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} can't be set: a summary is frozen; summarise other results")

    def once(self, compute: Callable[[Summary], Result]) -> Result:
        """Return what a function makes of the totals, computed when it is first asked for."""
        computed: dict[Any, Any] = self.__dict__["_computed"]
        if compute not in computed:
            computed[compute] = compute(self)
        result: Result = computed[compute]
        return result

    def of_role(self, role: Role) -> Sequence[Mapping[str, Any]]:
        """Return a role's rows of layers, in their order; an alternative's are of all variants."""
        return self._of_roles[role]

    def others_of(self, role: Role) -> Sequence[Mapping[str, Any]]:
        """Return a role's rows of what multiplies no matrices."""
        return _of_role(self.others, role)

    def all_of(self, role: Role) -> Sequence[Mapping[str, Any]]:
        """Return all rows of a role."""
        return behind([self.of_role(role), self.others_of(role)])

    @cached_property
    def share(self) -> float | None:
        """What results have, added up once."""
        return super().share

    @cached_property
    def _of_roles(self) -> Mapping[Role, Rows]:
        return {role: _of_role(self.roles, role) for role in Role}

    @cached_property
    def layers(self) -> tuple[Row, ...]:
        """What `per_layer` returns."""
        return tuple(_compare(self, ("layer", "op")))

    @cached_property
    def ops(self) -> tuple[Row, ...]:
        """What `per_op` returns."""
        others = ({**row, "op": OTHER} for row in _compare_others(self, ("op",), self.phases))
        return (*(parts := [*self._layer_ops, *others]), _whole(self, parts))

    @cached_property
    def _layer_ops(self) -> tuple[Row, ...]:
        found = _compare(self, ("op",), self.layers)
        return tuple(sorted(found, key=lambda row: OPS.index(row["op"])))

    @cached_property
    def of_layers(self) -> Row:
        """The totals of all layers and ops: of a step what multiplies, and nothing else."""
        (row,) = _compare(self, (), self._layer_ops)
        return {**row, "op": LAYERS}

    @cached_property
    def phases(self) -> tuple[Row, ...]:
        """Totals of what multiplies no matrices, a row a phase; none where results have none."""
        found = _compare_others(self, ("phase",))
        return tuple(sorted(found, key=lambda row: PHASES.index(row["phase"])))

    @cached_property
    def steps(self) -> tuple[Row, ...]:
        """What `by_step` returns."""
        return tuple(_by_step(self))

    @cached_property
    def roles(self) -> Mapping[Key, Rows]:
        """The rows of layers by (role, machine, variant), known to belong together."""
        check_comparable(self)
        rows = where(self.rows, "op", lambda op: op != OTHER)
        return grouped(rows, ("role", "machine", "variant"))

    @cached_property
    def others(self) -> Mapping[Key, Rows]:
        """The same of the rows of what multiplies no matrices."""
        check_comparable(self)
        rows = where(self.rows, "op", lambda op: op == OTHER)
        return grouped(rows, ("role", "machine", "variant"))


def summarise(results: Results) -> Summary:
    """Return the totals of results, for whoever asks for several tables or plots of them."""
    return results if isinstance(results, Summary) else Summary(results)


def per_layer(results: Results) -> list[Row]:
    """Return the recorded steps together: one row a layer and op, in the network's order.

    Counts are summed over the steps, densities averaged. Beside the columns of the results:

    - `steps`: how many recorded steps are summed up;
    - `baseline`: the baseline's columns, added up in the same way;
    - `speed_up`: its time by ours (its cycles, where a clock is not known), infinite where an op
      takes none; `speed_up_compute`: the same of the compute cycles; `speed_ups_alternative`: of
      other dense baselines, by their names;
    - `speed_up_dense_operands`: what of it operands without a zero have already, for padding and
      free lanes are skipped too, and bank conflicts waited for: the time that they take the
      baseline by the time that they take the machine; `speed_up_zeros`: what zeros add to it. The
      product of the two is `speed_up`. `speed_up_compute_dense_operands` and
      `speed_up_compute_zeros`: the same of the compute cycles. Not a number where the buffers
      can't hold such operands;
    - `energy_efficiency`: the baseline's energy by ours; not a number where one is not known;
    - `of_ideal`: `cycles_ideal`, what as many multipliers would take for the effectual MACs, a
      whole number of cycles each op, by its cycles; `of_ideal_compute`: by its compute cycles.
      That is its speed-up by the one that skipping the zeros of both operands could have at most.
      What multiplies nothing takes the ideal as long;
    - `utilisation`: effectual share of the lane-cycles;
    - `flops_dense`, `flops_effectual`, and `dram_bytes`: bytes carried.

    Raises
    ------
    ResultsError
        If the rows are of more than one trace, machine or baseline.
    """
    return list(summarise(results).layers)


def per_op(results: Results) -> list[Row]:
    """Return each op's totals over all layers and recorded steps; the last, "step", has all.

    Before it, if results have it, is a row "other": what multiplies no matrices; the step's counts
    it. The step's row has two columns more: `speed_up_layers`, the speed-up of its layers alone,
    and `elsewhere`, the share of the baseline's time that is not in layers; not a number where that
    is left out. What *one* step takes, `per_step` has.
    """
    return list(summarise(results).ops)


def by_step(results: Results) -> list[Row]:
    """Return the totals over layers of each recorded step and op: a row each, steps ascending.

    Behind them, if results have everything else, a row of op "step" for each, with that in it. Its
    columns are `step`, `op`, and the speed-ups that `per_layer` has.
    """
    return list(summarise(results).steps)


def per_step(row: Row, steps: int) -> Row:
    """Return what one step takes: the mean of so many that a row sums up.

    Returns
    -------
    dict
        `time_ms` (not a number where a clock is not known), and of `PER_STEP` what the row counts;
        None where it is not known.
    """
    clock = row["clock_mhz"]
    means = {name: None if row[name] is None else row[name] / steps for name in PER_STEP}
    return {"time_ms": means["cycles"] / (1000 * clock) if clock else nan, **means}


def lost_most_to(row: Row) -> str:
    """Return the bucket that took most of the lane-cycles without effectual work."""
    lost = [name for name in BUCKETS if name != "lane_cycles_effectual"]
    name = max(lost, key=lambda bucket: row[bucket])
    return name.removeprefix("lane_cycles_") if row[name] else ""


def first_of(results: Results, role: Role) -> Mapping[str, Any]:
    """Return the first row of a role."""
    return next(row for row in results.rows if row["role"] == role)


def total_of(results: Results, role: Role) -> Row:
    """Return the first row of a role, with all types of values that its layers' rows have."""
    rows = where(results.rows, "op", lambda op: op != OTHER)
    types = column_of(where(rows, "role", lambda it: it == role), "dtype")
    return {**first_of(results, role), "dtype": AND.join(dict.fromkeys(types))}


def baseline_of(results: Results) -> str:
    """Return the machine that the speed-ups are over."""
    return label_of(first_of(results, Role.BASELINE))


def sizes_of(results: Results) -> list[str]:
    """Return in words the machine's size, type, clock and DRAM, and other ones of the baseline."""
    totals = (total_of(results, role) for role in (Role.MACHINE, Role.BASELINE))
    words = (f"{row['pes']} PEs of {row['lanes']} multipliers" + _clock(row) for row in totals)
    return list(dict.fromkeys(words))


def _clock(row: Mapping[str, Any]) -> str:
    clock = f", {row['dtype']}, {row['clock_mhz']} MHz" if row["clock_mhz"] else ""
    return clock + (f", {row['dram_mb_per_s'] / 1000:g} GB/s" if row["dram_mb_per_s"] else "")


def alternatives_of(results: Results) -> list[str]:
    """Return the other dense baselines in the results."""
    rows = where(results.rows, "role", lambda role: role == Role.ALTERNATIVE)
    names = zip(column_of(rows, "machine"), column_of(rows, "variant"), strict=True)
    return [label(*name) for name in dict.fromkeys(names)]


def about(results: Results) -> list[str]:
    """Return in words what every plot of results is of: machine and baseline, and the trace."""
    machine, baseline = results.rows[0]["machine"], baseline_of(results)
    return [f"{machine}, baseline {baseline}", source_of(results)]


def energy_table_of(results: Results) -> str:
    """Return the table of energies; empty if the results don't say."""
    return str(results.provenance.get("parameters", {}).get("energy", {}).get("name", ""))


def source_of(results: Results) -> str:
    """Return the trace, and how much of it the results hold."""
    return f"{results.rows[0]['trace']}, {span_of(results)}"


def _of_role(roles: Mapping[Key, Rows], role: Role) -> Rows:
    return behind([rows for (found, *_), rows in roles.items() if found == role])


def together(rows: Sequence[Row]) -> Row:
    """Return one row of several of one op of `per_layer`, added up."""
    return beside(
        add_up(rows, rows), add_up(theirs := [row["baseline"] for row in rows], theirs), {}
    )


def _compare(results: Summary, by: Sequence[str], parts: Sequence[Row] = ()) -> Iterable[Row]:
    """Yield layers' totals by some columns; `parts` are totals by more of them, if any."""
    finer = grouped(parts, by)
    ours = grouped(results.of_role(Role.MACHINE), by)
    theirs = grouped(results.of_role(Role.BASELINE), by)
    others = _alternatives(results.roles, by)
    for key, rows in ours.items():
        own = finer.get(key, [])
        baseline = add_up(theirs[key], [part["baseline"] for part in own])
        cycles = {name: _cycles(them[key]) for name, them in others.items()}
        yield beside(add_up(rows, own), baseline, cycles)


def _compare_others(
    results: Summary, by: Sequence[str], parts: Sequence[Row] = ()
) -> Iterable[Row]:
    """Yield the same of what multiplies no matrices; a baseline takes nothing for a policy."""
    finer = grouped([{**part, "op": OTHER} for part in parts], by)
    ours = grouped(results.others_of(Role.MACHINE), by)
    theirs = grouped(results.others_of(Role.BASELINE), by)
    others = _alternatives(results.others, by)
    for key, rows in ours.items():
        own = finer.get(key, [])
        same = theirs.get(key) or [nothing_of(rows[0], first_of(results, Role.BASELINE))]
        baseline = add_up(same, [part["baseline"] for part in own])
        cycles = {name: _cycles(them.get(key, ())) for name, them in others.items()}
        yield beside(add_up(rows, own), baseline, cycles)


def _whole(results: Summary, parts: Sequence[Row]) -> Row:
    """Return the totals of a step, of its layers and everything else; types are the layers'."""
    ours, theirs = (results.of_role(role) for role in (Role.MACHINE, Role.BASELINE))
    baseline = add_up(theirs, [part["baseline"] for part in parts])
    every = [part["cycles_alternative"] for part in parts]
    cycles = {name: sum(of[name] for of in every) for name in every[0]}
    whole = beside(add_up(ours, parts), baseline, cycles)
    others = [part["baseline"]["cycles"] for part in parts if part["op"] == OTHER]
    alone = results.of_layers["speed_up"] if others else nan
    share = quotient(sum(others), baseline["cycles"]) if others else nan
    return {**whole, "op": STEP, "speed_up_layers": alone, "elsewhere": share}


def _alternatives(roles: Mapping[Key, Rows], by: Sequence[str]) -> dict[str, dict[Key, Rows]]:
    """Return the rows of other dense baselines, by their names."""
    return {
        label(machine, variant): grouped(rows, by)
        for (role, machine, variant), rows in roles.items()
        if role == Role.ALTERNATIVE
    }


def _cycles(rows: Rows) -> int:
    return sum(column_of(rows, "cycles"))


def _by_step(results: Summary) -> Iterable[Row]:
    by = ("step", "op")
    ours, theirs = (grouped(results.of_role(role), by) for role in (Role.MACHINE, Role.BASELINE))
    for step, op in sorted(ours, key=lambda key: (key[0], OPS.index(key[1]))):
        totals = [clocked(groups[step, op]) for groups in (ours, theirs)]
        yield {"step": step, "op": op, **speed_ups(*totals)}
    if results.phases:
        yield from _whole_steps(results)


def _whole_steps(results: Summary) -> Iterable[Row]:
    """Yield the same of each step with everything else in it."""
    ours, theirs = (
        grouped(results.all_of(role), ("step",)) for role in (Role.MACHINE, Role.BASELINE)
    )
    for (step,) in sorted(ours):
        totals = [clocked(groups[step,]) for groups in (ours, theirs)]
        yield {"step": step, "op": STEP, **speed_ups(*totals)}
