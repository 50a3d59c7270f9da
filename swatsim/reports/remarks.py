"""What figures should be read with: what of a step they are of, and their value types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from swatsim.columns import Role
from swatsim.reports.among import among
from swatsim.reports.span import EARLIER, MOST, Span, percent, span_of
from swatsim.reports.tables import AND, energy_table_of, total_of
from swatsim.results import Results
from swatsim.table import column_of
from swatsim.workload.value_types import stand_in, widest

#: Parts that are not held, in one sentence.
PARTS = 5
#: Stands for a share that results don't say.
UNKNOWN = "a share that is not known"
#: What is said where everything else is left out.
LAYERS_ALONE = (
    "Figures are of a step's layers alone; everything else that it does (norms, softmax, "
    "element-wise operations, the optimizer, ..) is in none of them"
)


def remarks(results: Results) -> list[str]:
    """Return sentences, without their full stops."""
    return [*of_step(results), *_of_types(results)]


def of_step(results: Results) -> Iterator[str]:
    """Yield what of a step the figures are of: which share of its products, and what else."""
    yield from of_share(results)
    span = span_of(results)
    if span.left_out:
        yield f"{LAYERS_ALONE}: {span.left_out}"
    elif 0 < span.images < span.batch_size:
        yield (
            f"A step here is one of {span.images} of its {span.batch_size} images, and not so many "
            "times less than the whole: weights are loaded for these images alone, and what works "
            "on weights alone, the optimizer for one, does not shrink with them; swatsim estimate "
            "TRACE -m MACHINE --run-steps TOTAL has whole batches"
        )


def of_share(results: Results) -> Iterator[str]:
    """Yield which share of a step's multiplications the figures are of, and what is not in them."""
    span, known = span_of(results), _coverage(results)
    if span.share is None:
        why = known.get("unknown", EARLIER)
        yield f"What share of a step's multiplications the trace holds is not known: {why}"
        return
    held = _held(known)
    if not span.whole and held is not None:
        yield (
            f"Simulated were {' and '.join(span.ops)} only, {percent(span.share)} of a step's "
            f"multiplications; the trace holds {percent(held)}{_not_held(known)}"
        )
    else:
        yield f"The trace holds {percent(span.share)} of a step's multiplications{_not_held(known)}"
    if span.partial:
        yield "A whole step's figures are others"
    if names := known.get("left_alone"):
        yield f"Left alone in the run: {names}"
    if names := known.get("unseen"):
        yield f"Parameters that got a gradient and are in no op: {names}"


def missing(results: Results) -> Iterator[str]:
    """Yield a warning of what the totals leave out, if that is much."""
    span = span_of(results)
    if span.partial:
        yield (
            f"the totals are {span.of_what}: they are no step's, and no run's"
            f"{_not_held(_coverage(results))}"
        )


def unequal(spans: Mapping[str, Span], call: Callable[[str], str] = str) -> str:
    """Return a warning that of several figures some are of layers alone; "" if it is not so.

    Parameters
    ----------
    spans : mapping of label to Span
    call : callable of label to str
        How labels are called.
    """
    alone = {label: span.left_out for label, span in spans.items() if span.left_out}
    if len(alone) in (0, len(spans)):
        return ""
    return (
        f"some are of a step's layers alone, {among(alone, call)}; the others of all that a step "
        "does: only layers are compared; simulate all alike"
    )


def apart(spans: Mapping[str, Span], call: Callable[[str], str] = str) -> str:
    """Return a warning that figures are of shares that differ much; "" if they do not.

    Parameters
    ----------
    spans : mapping of label to Span
    call : callable of label to str
        How labels are called.
    """
    shares = {label: span.share for label, span in spans.items()}
    known = [share for share in shares.values() if share is not None]
    if not known or (len(known) == len(shares) and max(known) - min(known) <= 1 - MOST):
        return ""
    words = {label: UNKNOWN if it is None else percent(it) for label, it in shares.items()}
    return (
        f"the figures are of different shares of a step's multiplications, {among(words, call)}: "
        "times and energies compare that too; record what is left out, or compare what all hold"
    )


def _coverage(results: Results) -> Mapping[str, Any]:
    found = results.provenance.get("parameters", {}).get("coverage", {})
    return found if isinstance(found, Mapping) else {}


def _held(known: Mapping[str, Any]) -> float | None:
    """Return the share that the trace holds, of all steps that were simulated."""
    sums = [sum(_numbers(known.get(name, {})).values()) for name in ("held", "seen")]
    return min(1.0, sums[0] / sums[1]) if sums[1] else None


def _not_held(known: Mapping[str, Any]) -> str:
    """Return in words what is not held, with its share of all: "; not: .."."""
    seen = sum(_numbers(known.get("seen", {})).values())
    not_held = _numbers(known.get("not_held", {})) if seen else {}
    parts = [f"{name} {percent(macs / seen)}" for name, macs in not_held.items()]
    if not parts:
        return ""
    more = len(parts[PARTS:]) + _numbers(known).get("more", 0)
    return f"; not: {', '.join(parts[:PARTS])}" + (f" and {more} more" if more else "")


def _numbers(part: Any) -> dict[str, int]:
    pairs = part.items() if isinstance(part, Mapping) else ()
    return {str(name): number for name, number in pairs if isinstance(number, int)}


def _of_types(results: Results) -> Iterator[str]:
    """Yield which types values have, whence, and which energies stand in for others."""
    types = {
        role: total_of(results, role)["dtype"].split(AND) for role in (Role.MACHINE, Role.BASELINE)
    }
    own = _parameter(results, "parameters").get("dtype", "")
    if _parameter(results).get("dtype_is_set") is False and own and types[Role.MACHINE] != [own]:
        yield (
            f"Values are {AND.join(types[Role.MACHINE])}, as in the run; the machine's own type is "
            f"{own} (--dtype preset)"
        )
    used = dict.fromkeys(filter(None, column_of(results.rows, "dtype")))
    yield from _stand_ins(results, list(used))


def _stand_ins(results: Results, types: list[str]) -> Iterator[str]:
    table = results.provenance.get("parameters", {}).get("energy", {}).get("mac", {})
    for dtype in types:
        other = stand_in(dtype, table) if isinstance(table, Mapping) else None
        if other in (None, dtype) or None in column_of(results.rows, "energy_pj"):
            continue
        yield (
            f"Energy table {energy_table_of(results)!r} has no products of {dtype}: those of "
            f"{other} stand in{', which is too little' * (widest((dtype, other)) == dtype)}"
        )


def _parameter(results: Results, *names: str) -> Mapping[str, Any]:
    """Return what the provenance says of the machine."""
    found: Any = results.provenance.get("parameters", {}).get("machine", {})
    for name in names:
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
