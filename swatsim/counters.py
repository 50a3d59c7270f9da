"""What is counted of an op: each counter, bucket and part of the energy is declared once, here.

A field of one of the four tuples is a column of the results, with its unit and meaning; a bucket
or a part of the energy is also drawn, with its label and colour. Nothing else lists them.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from swatsim.counts import Count, bucket, declared, energy, parts_of


class Counters(NamedTuple):
    """What one op costs on one machine, and what it asks of the memory system.

    A *lane-cycle* is one lane (one multiplier) of one PE for one cycle. Each is in exactly one of
    the buckets ``lane_cycles_*``, and they add up to ``cycles_compute * pes * lanes``.

    Parameters
    ----------
    cycles_compute : int
        From the first line of the op to its last.
    pes, lanes : int
        PEs of the machine, and multipliers in each.
    lane_cycles_effectual, .. : int
        The buckets; the meaning of each stands at its field. What is effectual equals the op's
        effectual MACs.
    words_a, words_b : int
        Values that the PEs take from the buffers of the first and the second operand, in the order
        weight, act, grad_out; in wgrad of a transposed convolution grad_out comes before act.
    multiplexed : int
        Products whose values went through multiplexers of a zero-skipping front end.
    schedules : int
        Lines that a hardware scheduler looked at, of one row.
    accumulations : int
        Accesses of accumulator banks.
    sums_written, sums_read : int
        Sums that PEs write into the output's buffer, and that they read back to add to them. Both
        0: the machine does not say, and each element of the output is written once, in wgrad once
        a sample.
    pattern_groups_a, pattern_groups_b : int
        Of an operand that a machine may run n:m, the groups of m values along the reduction; 0 of
        others. a and b as of words.
    pattern_obeying_a, pattern_obeying_b : int
        Of them those with at most n values that are not zero.
    compressed : str
        The operand that ran n:m, as the op names it; empty: none.
    """

    cycles_compute: Annotated[int, Count("cycles", "cycles without the memory system")]
    pes: Annotated[int, Count("PEs", "PEs of the machine", "same")]
    lanes: Annotated[int, Count("lanes", "multipliers of a PE", "same")]
    lane_cycles_effectual: Annotated[
        int, bucket("both values non-zero", "effectual work", "#009E73")
    ] = 0
    lane_cycles_ineffectual: Annotated[
        int,
        bucket(
            "multiplied, but a value was zero",
            "ineffectual work (a factor is zero)",
            "#56B4E9",
            "///",
        ),
    ] = 0
    lane_cycles_idle: Annotated[
        int,
        bucket(
            "the lane had no value to multiply, though its PE was at work",
            "idle lane (no value to take)",
            "#F0E442",
        ),
    ] = 0
    lane_cycles_row_sync: Annotated[
        int,
        bucket(
            "the row waited for the other rows of its tile", "waiting for other rows", "#E69F00"
        ),
    ] = 0
    lane_cycles_tile_sync: Annotated[
        int,
        bucket(
            "the tile waited for the slowest tile", "waiting for the slowest tile", "#D55E00", "xxx"
        ),
    ] = 0
    lane_cycles_pe_sync: Annotated[
        int,
        bucket(
            "the PE waited for the slowest PE", "waiting for the slowest PE", "#D55E00", "\\\\\\"
        ),
    ] = 0
    lane_cycles_bank_conflict: Annotated[
        int,
        bucket(
            "products waited for a bank of accumulators, or for its queue",
            "bank conflict",
            "#CC79A7",
        ),
    ] = 0
    lane_cycles_halo: Annotated[
        int,
        bucket("PEs exchanged the sums at their tiles' borders", "exchange of halos", "#000000"),
    ] = 0
    lane_cycles_unmapped: Annotated[
        int,
        bucket(
            "the op's sizes left the PE without a stream",
            "unmapped (sizes don't fill the array)",
            "#BBBBBB",
        ),
    ] = 0
    lane_cycles_skew: Annotated[
        int,
        bucket(
            "the wave front of a systolic array was on its way to the PE, or had left it",
            "wave front fills and drains",
            "#E69F00",
            "...",
        ),
    ] = 0
    words_a: Annotated[int, Count("words", "values that PEs took of the op's first operand")] = 0
    words_b: Annotated[int, Count("words", "values that PEs took of the op's second operand")] = 0
    multiplexed: Annotated[
        int, Count("products", "products whose values went through multiplexers")
    ] = 0
    schedules: Annotated[
        int, Count("lines", "lines, of a row, that a hardware scheduler looked at")
    ] = 0
    accumulations: Annotated[int, Count("accesses", "accesses of accumulator banks in the PEs")] = 0
    sums_written: Annotated[
        int,
        Count("words", "sums that PEs wrote into the output's buffer; 0: the machine does not say"),
    ] = 0
    sums_read: Annotated[int, Count("words", "sums that PEs read back, to add to them")] = 0
    pattern_groups_a: Annotated[
        int, Count("groups", "groups of m values of the first operand that could run n:m")
    ] = 0
    pattern_groups_b: Annotated[
        int, Count("groups", "groups of m values of the second operand that could run n:m")
    ] = 0
    pattern_obeying_a: Annotated[
        int, Count("groups", "of the first operand's groups those that obey n:m")
    ] = 0
    pattern_obeying_b: Annotated[
        int, Count("groups", "of the second operand's groups those that obey n:m")
    ] = 0
    compressed: Annotated[str, Count("-", "operand that ran n:m; empty: none", "listed")] = ""

    @property
    def lane_cycles(self) -> int:
        """All lane-cycles of the machine while the op runs."""
        return self.cycles_compute * self.pes * self.lanes

    @property
    def buckets(self) -> dict[str, int]:
        """The lane-cycles by where they went."""
        return {name: getattr(self, name) for name in MACHINE_BUCKETS}

    @property
    def utilisation(self) -> float:
        """Share of the lane-cycles that did effectual work."""
        return self.lane_cycles_effectual / self.lane_cycles if self.lane_cycles else 0.0

    @property
    def products(self) -> int:
        """Products that were computed."""
        return self.lane_cycles_effectual + self.lane_cycles_ineffectual

    def times(self, repeats: int) -> Counters:
        """Return the counters of the same op run so many times, one after another."""
        return self._replace(**{name: getattr(self, name) * repeats for name in SUMMED})


class MemoryCounters(NamedTuple):
    """What the memory system makes of an op.

    Its buckets take what a machine's leave of all lane-cycles: together they add up to
    ``cycles * pes * lanes``.

    Parameters
    ----------
    cycles : int
        From the first request to the last byte written.
    lane_cycles_buffer, .. : int
        The buckets; the meaning of each stands at its field.
    loop_order : str
        Loops over blocks, outermost first.
    block_groups, block_filters, block_channels, block_rows : int
        Extents of a block.
    blocks : int
        Of the op.
    dram_bytes_weight, dram_bytes_act, dram_bytes_grad_out : int
        Loaded.
    dram_bytes_result : int
        Of the output, written.
    dram_bytes_partial : int
        Of partial sums, written and loaded again.
    dram_bytes_prune : int
        Of an operand that is pruned in each step.
    words_out : int
        Accesses of the output's buffer by the PEs.
    """

    cycles: Annotated[
        int, Count("cycles", "from the first request to DRAM to the last byte written")
    ]
    lane_cycles_buffer: Annotated[
        int,
        bucket(
            "a buffer gave fewer words than the PEs could take",
            "waiting for a buffer",
            "#882255",
            "---",
        ),
    ] = 0
    lane_cycles_prune: Annotated[
        int,
        bucket(
            "an operand was read dense and written packed, before the op",
            "pruning in each step",
            "#0072B2",
            "xxx",
        ),
    ] = 0
    lane_cycles_dram: Annotated[
        int,
        bucket(
            "a block was not there yet, or the one before not drained",
            "waiting for DRAM",
            "#0072B2",
        ),
    ] = 0
    lane_cycles_fill_drain: Annotated[
        int,
        bucket(
            "the first block was on its way in, or the last on its way out",
            "first block in, last block out (DRAM)",
            "#0072B2",
            "...",
        ),
    ] = 0
    loop_order: Annotated[
        str, Count("-", "loops over blocks: K filters, C channels, N rows", "cut")
    ] = ""
    block_groups: Annotated[int, Count("groups", "groups of a block", "cut")] = 0
    block_filters: Annotated[int, Count("filters", "filters of a group in a block", "cut")] = 0
    block_channels: Annotated[int, Count("channels", "channels of a group in a block", "cut")] = 0
    block_rows: Annotated[
        int, Count("rows", "rows of an image, or of several, in a block", "cut")
    ] = 0
    blocks: Annotated[int, Count("blocks", "blocks of the op")] = 0
    dram_bytes_weight: Annotated[int, Count("bytes", "weights loaded")] = 0
    dram_bytes_act: Annotated[int, Count("bytes", "activations loaded")] = 0
    dram_bytes_grad_out: Annotated[int, Count("bytes", "gradients loaded")] = 0
    dram_bytes_result: Annotated[int, Count("bytes", "of the op's output, written")] = 0
    dram_bytes_partial: Annotated[
        int, Count("bytes", "of partial sums, written and loaded again")
    ] = 0
    dram_bytes_prune: Annotated[
        int, Count("bytes", "of an operand that is pruned in each step: read dense, written packed")
    ] = 0
    words_out: Annotated[int, Count("words", "accesses of the output's buffer by PEs")] = 0

    @property
    def dram_bytes(self) -> int:
        """Bytes that DRAM carries."""
        return sum(getattr(self, name) for name in OP_BYTES)


class VectorCounters(NamedTuple):
    """What operations take that multiply no matrices: the vector unit runs them, PEs wait.

    Parameters
    ----------
    lane_cycles_vector : int
        All lane-cycles of such a row.
    vector_elements : int
        Values that the operations work on.
    dram_bytes_vector : int
        Read and written by them.
    """

    lane_cycles_vector: Annotated[
        int,
        bucket(
            "PEs waited while the vector unit did what multiplies no matrices",
            "everything else (vector unit)",
            "#882255",
        ),
    ] = 0
    vector_elements: Annotated[int, Count("values", "values that the vector unit worked on")] = 0
    dram_bytes_vector: Annotated[int, Count("bytes", "read and written by the vector unit")] = 0


class Energies(NamedTuple):
    """Energy of an op, by part, in pJ; the results call a part ``energy_pj_PART``."""

    mac: Annotated[float, energy("products", "multiply-accumulates", "#009E73")]
    multiplexer: Annotated[
        float, energy("multiplexers of a zero-skipping front end", "multiplexers", "#F0E442")
    ]
    scheduler: Annotated[
        float, energy("schedulers of a zero-skipping front end", "schedulers", "#D55E00", "xxx")
    ]
    accumulator: Annotated[
        float, energy("accumulator banks in the PEs", "accumulator banks", "#CC79A7")
    ]
    buffer_a: Annotated[
        float, energy("the first operand's buffer", "first operand's buffer", "#56B4E9")
    ]
    buffer_b: Annotated[
        float, energy("the second operand's buffer", "second operand's buffer", "#56B4E9", "///")
    ]
    buffer_out: Annotated[float, energy("the output's buffer", "output's buffer", "#BBBBBB")]
    dram: Annotated[float, energy("DRAM", "DRAM", "#0072B2")]
    vector: Annotated[
        float,
        energy("the vector unit, each value as a product", "vector unit", "#882255"),
    ]


#: How each is drawn, by its column: a machine's buckets, all of them (the effectual ones first),
#: and the parts of the energy.
MACHINE_BUCKETS = parts_of(Counters)
BUCKETS = MACHINE_BUCKETS | parts_of(MemoryCounters, VectorCounters)
ENERGY_PARTS = parts_of(Energies)

#: A machine's counters that add up over ops, what adds up to an op's bytes of DRAM, and all bytes.
SUMMED = tuple(one.column for one in declared(Counters) if one.what.adds == "sum")
OP_BYTES = tuple(name for name in MemoryCounters._fields if name.startswith("dram_bytes_"))
DRAM_BYTES = (*OP_BYTES, "dram_bytes_vector")

#: Buckets that an ideal DRAM leaves empty: waiting for it, and pruning on the way through it.
DRAM_WAITS = tuple(f"lane_cycles_{it}" for it in ("dram", "fill_drain", "prune"))
