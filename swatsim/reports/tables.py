"""Rows of results, put together: per layer and op, per op, and for the whole training step.

Plain rows, not frames: a table of a command that ends in two seconds can't wait a third of one for
pandas. ``pandas.DataFrame(rows)`` makes a frame of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import inf, isnan, nan
from operator import itemgetter
from statistics import fmean
from typing import Any, TypeVar

from swatsim.columns import COLUMNS, Role, label
from swatsim.counters import BUCKETS, DRAM_BYTES
from swatsim.errors import ResultsError
from swatsim.reports.span import span_of
from swatsim.results import Results
from swatsim.workload.flops import FLOPS_PER_MAC
from swatsim.workload.layer import OPS

Row = dict[str, Any]

#: The row of a table that sums up all ops.
STEP = "step"

#: Between values of a column of which several are listed.
AND = " and "

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
#: Columns that speed-ups are computed from, beside the clock.
_CYCLES = ("cycles", "cycles_compute", "cycles_dense_operands", "cycles_compute_dense_operands")

Key = tuple[Any, ...]
Result = TypeVar("Result")


class Summary(Results):
    """Results with their totals, each of which is computed once, when it is first asked for.

    Whatever takes results takes a summary of them; `summarise` makes one. It is frozen, and its
    rows must not be changed any more.
    """

    def __init__(self, results: Results) -> None:
        # its rows were looked at when the results were made
        own = {"rows": list(results.rows), "provenance": results.provenance, "_computed": {}}
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
        """Return the rows of a role, in their order; an alternative's are of several variants."""
        groups = (rows for (found, *_), rows in self.roles.items() if found == role)
        return [row for rows in groups for row in rows]

    @cached_property
    def layers(self) -> tuple[Row, ...]:
        """What `per_layer` returns."""
        return tuple(_compare(self, ("layer", "op")))

    @cached_property
    def ops(self) -> tuple[Row, ...]:
        """What `per_op` returns."""
        found = _compare(self, ("op",), self.layers)
        ops = sorted(found, key=lambda row: OPS.index(row["op"]))
        return (*ops, *({**row, "op": STEP} for row in _compare(self, (), ops)))

    @cached_property
    def steps(self) -> tuple[Row, ...]:
        """What `by_step` returns."""
        return tuple(_by_step(self))

    @cached_property
    def roles(self) -> Mapping[Key, Sequence[Mapping[str, Any]]]:
        """The rows by (role, machine, variant), once they are known to belong together."""
        check_comparable(self)
        return _grouped(self.rows, ("role", "machine", "variant"))


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
      That is its speed-up by the one that skipping the zeros of both operands could have at most;
    - `utilisation`: effectual share of the lane-cycles;
    - `flops_dense`, `flops_effectual`, and `dram_bytes`: bytes carried.

    Raises
    ------
    ResultsError
        If the rows are of more than one trace, machine or baseline.
    """
    return list(summarise(results).layers)


def per_op(results: Results) -> list[Row]:
    """Return each op's totals over all layers and recorded steps; the last, "step", has all ops.

    What *one* step takes, `per_step` has.
    """
    return list(summarise(results).ops)


def by_step(results: Results) -> list[Row]:
    """Return the totals over layers of each recorded step and op: a row each, steps ascending.

    Its columns are `step`, `op`, and the speed-ups that `per_layer` has.
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
    """Return the first row of a role, with all types of values that its rows have."""
    types = (row["dtype"] for row in results.rows if row["role"] == role)
    return {**first_of(results, role), "dtype": AND.join(dict.fromkeys(types))}


def label_of(row: Mapping[str, Any]) -> str:
    """Return what people call the machine of a row."""
    return label(row["machine"], row["variant"])


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
    rows = (row for row in results.rows if row["role"] == Role.ALTERNATIVE)
    return list(dict.fromkeys(map(label_of, rows)))


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


def check_comparable(results: Results) -> None:
    """Refuse to compare rows that don't belong together.

    Raises
    ------
    ResultsError
        If there are none, they are of more than one trace, machine or baseline, or the baseline's
        are not of the same ops.
    """
    traces = {row["trace_id"] for row in results.rows}
    if len(traces) != 1:
        raise ResultsError(
            f"the results hold {len(traces)} different traces: a speed-up compares machines on "
            "one trace; select the rows of one"
        )
    for role in (Role.MACHINE, Role.BASELINE):
        names = sorted({label_of(row) for row in results.rows if row["role"] == role})
        if len(names) != 1:
            raise ResultsError(
                f"the results hold {len(names)} machines of role {role.value!r} "
                f"({', '.join(names)}): select the rows of one"
            )
    _check_ops(results)


def _check_ops(results: Results) -> None:
    ops: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in results.rows:
        key = row["step"], row["layer"], row["op"]
        ops.setdefault((row["role"], label_of(row)), []).append(key)
    expected = next(keys for (role, _), keys in ops.items() if role == Role.MACHINE)
    for (_, name), keys in ops.items():
        if len(set(keys)) != len(keys) or set(keys) != set(expected):
            raise ResultsError(
                f"the rows of {name!r} are not of the same ops as the machine's, each once: "
                "simulate again, or select whole steps"
            )


def _compare(results: Summary, by: Sequence[str], parts: Sequence[Row] = ()) -> Iterable[Row]:
    """Yield the rows' totals by some columns; `parts` are totals by more of them, if any."""
    finer = _grouped(parts, by)
    ours = _grouped(results.of_role(Role.MACHINE), by)
    theirs = _grouped(results.of_role(Role.BASELINE), by)
    others = {
        label(machine, variant): _grouped(rows, by)
        for (role, machine, variant), rows in results.roles.items()
        if role == Role.ALTERNATIVE
    }
    for key, rows in ours.items():
        own = finer.get(key, [])
        total = _add_up(rows, own)
        cycles = {name: sum(map(itemgetter("cycles"), them[key])) for name, them in others.items()}
        speed_ups = {name: quotient(n, total["cycles"]) for name, n in cycles.items()}
        beside = _beside(total, _add_up(theirs[key], [part["baseline"] for part in own]))
        yield {**beside, "speed_ups_alternative": speed_ups}


def _by_step(results: Summary) -> Iterable[Row]:
    by = ("step", "op")
    ours, theirs = (_grouped(results.of_role(role), by) for role in (Role.MACHINE, Role.BASELINE))
    for step, op in sorted(ours, key=lambda key: (key[0], OPS.index(key[1]))):
        totals = [_clocked(groups[step, op]) for groups in (ours, theirs)]
        yield {"step": step, "op": op, **speed_ups(*totals)}


def _clocked(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the sums that speed-ups need."""
    added = {name: _added([row[name] for row in rows]) for name in _CYCLES}
    return {**added, "clock_mhz": rows[0]["clock_mhz"]}


def _grouped(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str]
) -> dict[Key, list[Mapping[str, Any]]]:
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return groups


def _add_up(rows: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]] = ()) -> Row:
    """Return each column summed, averaged or kept, as the schema says that it adds up.

    Sums are of `parts`, which are totals of the same rows, if there are any.
    """
    total = {**rows[0], "steps": len({row["step"] for row in rows})}
    ideal = (part["cycles_ideal"] for part in parts) if parts else map(_ideal, rows)
    total["cycles_ideal"] = sum(ideal)
    for column in COLUMNS:
        how = _HOW.get(column.adds)
        if how is not None:
            values = parts if parts and column.adds == "sum" else rows
            total[column.name] = how(list(map(itemgetter(column.name), values)))
        elif column.adds == "step":
            of_each = {row["step"]: row[column.name] for row in rows}
            total[column.name] = _added(list(of_each.values()))
    return total


def _ideal(row: Mapping[str, Any]) -> int:
    """Return the cycles of an op on as many multipliers, none of which ever waits."""
    multipliers: int = row["pes"] * row["lanes"]
    return -(-int(row["macs_effectual"]) // multipliers)


def _added(values: list[Any]) -> Any:
    """Return a sum; unknown if a summand is."""
    return None if None in values else sum(values)


def _averaged(values: list[Any]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else nan


_HOW: Mapping[str, Callable[[list[Any]], Any]] = {
    "sum": _added,
    "mean": _averaged,
    "listed": lambda values: AND.join(dict.fromkeys(value for value in values if value)),
}


def quotient(baseline: float, ours: float) -> float:
    """Return a quotient; infinite where only ours is nothing, not a number where both are."""
    return baseline / ours if ours else inf if baseline else nan


def speed_ups(ours: Row, theirs: Row) -> Row:
    """Return a machine's speed-ups over its baseline."""
    # what counts is time; without a clock, cycles
    clocks = ours["clock_mhz"], theirs["clock_mhz"]
    faster = clocks[0] / clocks[1] if all(clocks) else 1
    found: Row = {}
    for of in ("", "_compute"):
        cycles, dense = f"cycles{of}", f"cycles{of}_dense_operands"
        whole = quotient(theirs[cycles] * faster, ours[cycles])
        known = ours[dense] is not None and theirs[dense] is not None
        own = quotient(theirs[dense] * faster, ours[dense]) if known else nan
        found |= {
            f"speed_up{of}": whole,
            f"speed_up{of}_dense_operands": own,
            f"speed_up{of}_zeros": quotient(whole, own) if not isnan(own) else nan,
        }
    return found


def _beside(ours: Row, theirs: Row) -> Row:
    lane_cycles = ours["lane_cycles"]
    known = ours["energy_pj"] is not None and theirs["energy_pj"] is not None
    return {
        **_with_totals(ours),
        "baseline": _with_totals(theirs),
        **speed_ups(ours, theirs),
        "energy_efficiency": quotient(theirs["energy_pj"], ours["energy_pj"]) if known else nan,
        "of_ideal": quotient(ours["cycles_ideal"], ours["cycles"]),
        "of_ideal_compute": quotient(ours["cycles_ideal"], ours["cycles_compute"]),
        "utilisation": ours["lane_cycles_effectual"] / lane_cycles if lane_cycles else nan,
    }


def _with_totals(row: Row) -> Row:
    return {
        **row,
        "flops_dense": row["macs_dense"] * FLOPS_PER_MAC,
        "flops_effectual": row["macs_effectual"] * FLOPS_PER_MAC,
        "dram_bytes": sum(row[name] for name in DRAM_BYTES),
    }
