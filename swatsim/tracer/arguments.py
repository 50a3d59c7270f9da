"""What a user says about a recording, checked when it is said."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from itertools import islice
from math import prod
from typing import Any, TypeAlias, cast, get_args

import numpy as np

from swatsim.arguments import is_whole, whole
from swatsim.errors import RecordingError, shown
from swatsim.policies.interface import Policy
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.others import OtherWork
from swatsim.tracefile.plain import plain
from swatsim.tracefile.schema import (
    MAX_BATCH,
    MAX_ELEMENTS,
    MAX_SAMPLES,
    MAX_STEP,
    VALUE_TYPES,
    StepLayer,
)
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.windows import Mask

Steps: TypeAlias = Collection[int] | Callable[[int], bool]


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return a policy's description of itself; what is no policy is refused."""
    if isinstance(policy, type):
        name = policy.__name__
        raise RecordingError(f"policy={name} is a class: make one of it, such as {name}(0.8)")
    if not all(callable(getattr(policy, name, None)) for name in ("density", "describe")):
        raise RecordingError(
            f"policy={shown(policy)} is not allowed: must have the methods density and describe, "
            "as SwatU(0.8) has"
        )
    try:
        description: dict[str, Any] = plain(dict(policy.describe()))
    except (TypeError, ValueError) as error:
        message = f"policy={shown(policy)}: its describe() must give a dict of JSON: {error}"
        raise RecordingError(message) from None
    return description


def checked_object(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of what a user states of a run; what JSON can't hold is refused."""
    try:
        if not isinstance(value, Mapping | None):
            raise TypeError(f"it is a {type(value).__name__}")
        copied: dict[str, Any] = plain(dict(value or {}))
    except (TypeError, ValueError) as error:
        raise RecordingError(
            f"{name}={shown(value)} is not allowed: must be a dict of JSON, such as "
            f"{{'loss': 0.5}} ({error})"
        ) from None
    return copied


def checked_batch(batch_size: int, at_least: int = 1) -> int:
    """Return the size of a batch; at least `at_least`, for a recorded sample is in it."""
    size = whole(batch_size)
    if is_whole(size) and at_least <= size <= MAX_BATCH:
        return int(size)
    raise RecordingError(
        f"batch_size={shown(batch_size)} is not allowed: must be a whole number of samples, from "
        f"{at_least} (a sample that is kept is in it) to {MAX_BATCH}"
    )


def checked_samples(samples: Iterable[int] | None, batch_size: int) -> tuple[int, ...] | None:
    """Return the samples that are recorded, None for all; the first few may be all of a batch."""
    if samples is None:
        return None
    try:
        most = 0 if isinstance(samples, Sized) and len(samples) > MAX_SAMPLES else MAX_SAMPLES + 1
        numbers = tuple(whole(sample) for sample in islice(samples, most))
    except TypeError:
        numbers = ()
    if not 0 < len(numbers) <= MAX_SAMPLES or not all(map(_is_count, numbers)):
        raise RecordingError(
            f"samples={shown(samples)} of a batch of {batch_size} is not allowed: must be the "
            f"numbers of the samples that are kept, such as range(8), from 1 to {MAX_SAMPLES} of "
            "them"
        )
    first_ones = isinstance(samples, range) and samples.start == 0
    if len(set(numbers)) < len(numbers) or (not first_ones and max(numbers) >= batch_size):
        raise RecordingError(
            f"samples={shown(samples)} is not allowed: must be different and below "
            f"batch_size={batch_size}"
        )
    return numbers


def checked_dtype(layer: str, operand: Operand, dtype: str | None) -> str | None:
    """Return the name of a value type, or None where it is unknown."""
    if dtype is None or (isinstance(dtype, str) and dtype in VALUE_TYPES):
        return dtype
    raise RecordingError(
        f"layer {layer!r}: {operand} of dtype={shown(dtype)} is not allowed: must be the name of a "
        "value type in torch, such as 'float32' or 'bfloat16', or None where it is unknown"
    )


def checked_coverage(coverage: Coverage | None) -> Coverage | None:
    """Return how much of a step is held, or None where nobody counted."""
    if coverage is None or isinstance(coverage, Coverage):
        return coverage
    raise RecordingError(
        f"coverage={shown(coverage)} is not allowed: must be a swatsim.tracefile.Coverage, or None"
    )


def checked_others(others: Sequence[OtherWork] | None) -> tuple[OtherWork, ...] | None:
    """Return what else a step did, or None where nobody noted it."""
    known = others is None or isinstance(others, Sequence)
    if known and all(isinstance(work, OtherWork) for work in others or ()):
        return None if others is None else tuple(others)
    raise RecordingError(
        f"others={shown(others)} is not allowed: must be a sequence of "
        "swatsim.tracefile.OtherWork, or None"
    )


def checked_number(number: int) -> int:
    """Return a step's number as Python's int; anything else is refused."""
    if _is_count(number):
        return operator.index(number)
    raise RecordingError(
        f"step {shown(number)} is not allowed: steps are counted from 0, and are below 2**63"
    )


def checked_layer(layer: Layer) -> Layer:
    """Return the layer built again: one that was changed by copying it was never checked."""
    if not isinstance(layer, Layer):
        raise RecordingError(f"layer={shown(layer)} is not allowed: must be a swatsim.Layer")
    fields = layer.model_dump()
    try:
        return _built(**fields)
    except TypeError:  # a field that can't be hashed is none of a layer's, which says so
        return _built.__wrapped__(**fields)


@lru_cache(maxsize=10_000, typed=True)
def _built(**fields: Any) -> Layer:
    """Return a layer, made once: it is asked for in every step, and takes a while to check."""
    return Layer(**fields)


def checked_step_layer(layer: Layer, batch: int, samples: int) -> StepLayer:
    """Return a layer as it runs in a step, built again; what a trace can't hold is refused.

    Raises
    ------
    RecordingError, TraceError, WorkloadError
    """
    built = checked_layer(layer)
    try:
        return _of_step(built, batch, samples)
    except TypeError:
        return _of_step.__wrapped__(built, batch, samples)


@lru_cache(maxsize=10_000, typed=True)
def _of_step(layer: Layer, batch: int, samples: int) -> StepLayer:
    own = StepLayer(layer=layer, batch=batch, samples=samples)
    if wrong := too_large(own.layer, own.samples):
        raise RecordingError(wrong)
    return own


def too_large(layer: Layer, samples: int) -> str | None:
    """Return which of a layer's masks is too large for a trace, with that many samples, or None."""
    for operand in OPERANDS:
        elements = prod(layer.shape_of(operand, samples))
        if elements > MAX_ELEMENTS:
            return (
                f"layer {layer.name!r}: its {operand} mask of {samples} samples would have "
                f"{elements} elements, at most {MAX_ELEMENTS} can be recorded: keep fewer samples"
            )
    return None


def checked_ops(layer: str, op: OpName | Iterable[OpName], operand: Operand) -> list[OpName]:
    """Return the ops that read an operand, each once."""
    try:
        ops: list[Any] = [op] if isinstance(op, str) else list(op)
    except TypeError:
        ops = [op]
    known = [name for name, reads in OPERANDS_OF.items() if operand in reads]
    for each in ops:
        if each not in known:
            raise RecordingError(
                f"layer {layer!r}: {shown(each)} does not read {shown(operand)}: fprop reads "
                "weight and act, dgrad weight and grad_out, wgrad act and grad_out"
            )
    if not ops or len(set(ops)) != len(ops):
        raise RecordingError(
            f"layer {layer!r}: op={shown(op)} is not allowed: name at least one of "
            f"{', '.join(get_args(OpName))}, each once"
        )
    return ops


def checked_output(layer: str, op: OpName) -> Operand:
    """Return the operand that has the shape of what an op makes."""
    if not isinstance(op, str) or op not in OUTPUT_OF:
        raise RecordingError(
            f"layer {layer!r}: op={shown(op)} is not allowed: must be one of {', '.join(OUTPUT_OF)}"
        )
    return OUTPUT_OF[op]


def checked_mask(layer: str, operand: Operand, mask: Mask) -> Mask:
    """Return a mask; what is no array of bool is refused."""
    if isinstance(mask, np.ndarray) and mask.dtype == np.bool_:
        return np.asarray(mask)
    raise RecordingError(
        f"layer {layer!r}: {operand} mask is {getattr(mask, 'dtype', type(mask).__name__)},"
        " expected a numpy array of bool: pass `values != 0`"
    )


def checked_images(images: int | None) -> int | None:
    """Return a number of samples, or None for all; anything else is refused."""
    if images is None or (_is_count(images) and images >= 1):
        return None if images is None else operator.index(images)
    raise RecordingError(
        f"images={shown(images)} is not allowed: must be at least 1, or None for all"
    )


def checked_start(start: int) -> int:
    """Return a step's number as Python's int; anything else is refused."""
    if _is_count(start):
        return operator.index(start)
    raise RecordingError(
        f"start={shown(start)} is not allowed: must be the number of this run's first step, "
        "counted from 0"
    )


def checked_steps(steps: Steps) -> tuple[Callable[[int], bool], Any]:
    """Return whether a step is wanted, as a function of its number, and `steps` in JSON."""
    no_steps = isinstance(cast(object, steps), str | bytes | type)
    if callable(steps) and not no_steps:
        return lambda number: bool(steps(number)), getattr(steps, "__qualname__", repr(steps))
    if isinstance(steps, range):
        return steps.__contains__, repr(steps)
    if no_steps or not isinstance(steps, Collection) or not all(map(_is_count, steps)):
        raise RecordingError(
            f"steps={shown(steps)} is not allowed: must be step numbers counted from 0, such as "
            "(0, 500), a range, or a function of the number"
        )
    numbers = frozenset(map(operator.index, steps))
    return numbers.__contains__, sorted(numbers)


def _is_count(value: Any) -> bool:
    number = whole(value)
    return is_whole(number) and 0 <= number < MAX_STEP
