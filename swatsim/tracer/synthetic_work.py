"""What a layer table's step does beside multiplying, as a recorder would have noted it.

Element-wise operations one after another, in the same module and phase, without a product between
them, each of which reads what the one before it made, are one chain. It reads what it did not make
itself; it writes what it ends with, and of what it makes on the way that which is kept: for the
backward pass, or by the optimizer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from swatsim.tracefile.others import Operation, OtherWork
from swatsim.workload.tables import Network
from swatsim.workload.work import Part, Work


def other_works(network: Network, batch: int) -> list[OtherWork] | None:
    """Return what else a training step does on a batch, equal ones added up; None if unknown."""
    if network.works is None:
        return None
    kept = {saved.tensor for saved in network.saved}
    kept |= {*network.inputs.values(), *network.rights.values()}
    found: dict[OtherWork, int] = {}
    for chain in _chains(network.works):
        work = _noted(chain, kept, batch)
        found[work] = found.get(work, 0) + 1
    return [work.model_copy(update={"times": times}) for work, times in found.items()]


def _chains(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Yield the operations, those of a chain together."""
    chain: list[Work] = []
    for work in works:
        if chain and not _goes_on(chain[-1], work):
            yield chain
            chain = []
        chain.append(work)
    if chain:
        yield chain


def _goes_on(last: Work, work: Work) -> bool:
    one, other = ((it.phase, it.module, it.products) for it in (last, work))
    made = _names(last.writes) & _names(work.reads)
    return one == other and last.elementwise and work.elementwise and bool(made)


def _names(parts: Sequence[Part]) -> set[str]:
    return {part.name for part in parts if part.name}


def _noted(chain: Sequence[Work], kept: Collection[str], batch: int) -> OtherWork:
    first = chain[0]
    operations = tuple(
        Operation(
            function=work.function,
            elements=work.elements(batch),
            read=work.read(batch),
            written=work.written(batch),
        )
        for work in chain
    )
    grows = any(part.extent.sample for work in chain for part in (*work.reads, *work.writes))
    grows = grows or any(work.extent is not None for work in chain)
    return OtherWork(
        module=first.module,
        phase=first.phase,
        operations=operations,
        read=sum(part.bytes(batch) for part in _read(chain)),
        written=sum(part.bytes(batch) for part in _written(chain, kept)),
        per_sample=None if grows == (first.phase != "optimizer") else grows,
    )


def _read(chain: Sequence[Work]) -> Iterator[Part]:
    """Yield what a chain reads and has not made itself, each tensor once."""
    known: set[str] = set()
    for work in chain:
        for part in work.reads:
            if part.name not in known:
                yield part
        known |= _names(work.reads) | _names(work.writes)


def _written(chain: Sequence[Work], kept: Collection[str]) -> Iterator[Part]:
    """Yield what a chain writes: not what its next operation reads, unless it is kept."""
    for i, work in enumerate(chain):
        later = chain[i + 1 :]
        again = {name for each in later for name in _names(each.writes)}
        read = _names(later[0].reads) if later else set()
        for part in work.writes:
            is_held = part.name in kept or part.name.startswith("state.")
            if part.name not in again and (part.name not in read or is_held):
                yield part
