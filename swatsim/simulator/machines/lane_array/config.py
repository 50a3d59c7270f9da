"""Parameters and presets of `lane_array`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, assert_never

from pydantic import Field, model_validator

from swatsim.simulator.mechanism import MachineConfig, Preset, Published
from swatsim.validation import count

Move = tuple[int, int]

#: A line is one machine word in the kernel.
MAX_LANES = 64

#: TensorDash's hardware: lanes of one level never compete for a value (MICRO 2020, section 3.2).
LEVELS: tuple[tuple[int, ...], ...] = (
    (0, 5, 10),
    (1, 6, 11),
    (2, 7, 12),
    (3, 8, 13),
    (4, 9, 14),
    (15,),
)


class Scheduled(StrEnum):
    """The operand whose zeros are skipped."""

    NONE = "none"
    WEIGHT = "weight"
    ACT = "act"
    GRAD_OUT = "grad_out"
    SPARSER = "sparser"


class Scheduling(StrEnum):
    """Who schedules: software before the run, or hardware in it."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class MoveShape(StrEnum):
    """Where a free lane's moves from other lanes lie."""

    L = "L"
    T = "T"
    T_MIRRORED = "T-mirrored"


class MapOrder(StrEnum):
    """In which order a lane looks at its moves."""

    AS_WRITTEN = "as_written"
    SORTED = "sorted"


class Scheduler(StrEnum):
    """Which free lane takes a value first."""

    MOST_CANDIDATES = "most_candidates"
    FEWEST_CANDIDATES = "fewest_candidates"
    LEVELS = "levels"


class WgradReduces(StrEnum):
    """What a weight's gradient is summed over at once."""

    POSITIONS = "positions"
    BATCH = "batch"


class LaneArrayConfig(MachineConfig):
    """Geometry and scheduler of a `lane_array`.

    A row holds one stream of the *scheduled* operand, a column one of the *following* operand; PE
    (i, j) reduces row i's stream against column j's, `lanes` products a cycle.

    Raises
    ------
    ConfigError
        If a value is out of range or at odds with another.
    """

    tiles: Annotated[int, count("tiles; each has rows x columns PEs", "tiles", 1, 2**16)]
    rows: Annotated[int, count("rows of a tile, in lockstep", "PEs", 1, 2**16)]
    columns: Annotated[int, count("columns of a tile", "PEs", 1, 2**16)]
    lanes: Annotated[int, count("multipliers of a PE", "lanes", 1, MAX_LANES)]
    scheduled: Annotated[
        Scheduled,
        Field(
            description="operand whose zeros are skipped; an op that lacks it runs dense; "
            "'sparser' is the one of lower density in each op"
        ),
    ]
    scheduling: Annotated[
        Scheduling,
        Field(
            description="static: software schedules the weights before the run, where scheduled "
            "names them; dynamic: hardware does in the run, as it does other operands in any case"
        ),
    ] = Scheduling.STATIC
    lookahead: Annotated[int, count("how many lines ahead a value may come from", "lines", 0, 255)]
    lookaside: Annotated[int, count("moves from other lanes", "moves", 0, MAX_LANES - 1)]
    move_shape: Annotated[
        MoveShape,
        Field(
            description="L: from the next line, lanes -1..-d; T: lanes +1,-1,+2,-2,.. from "
            "alternating lines; T-mirrored: -1,+1,-2,+2,.."
        ),
    ]
    map_order: Annotated[
        MapOrder,
        Field(description="order in which a lane looks at its moves; sorted: by line, then lane"),
    ]
    scheduler: Annotated[
        Scheduler,
        Field(
            description="which free lane takes a value first: the one with most or fewest "
            "candidates, recounted after each move; or TensorDash's fixed levels"
        ),
    ]
    fold_stem: Annotated[
        bool,
        Field(
            description="fprop of a strided layer with 3 channels is folded first: space to depth "
            "by the stride"
        ),
    ]
    wgrad_reduces: Annotated[
        WgradReduces,
        Field(
            description="what wgrad sums at once: the positions of one sample, samples one after "
            "another; or those of the whole batch"
        ),
    ] = WgradReduces.POSITIONS

    @model_validator(mode="after")
    def _relations(self) -> LaneArrayConfig:
        if self.scheduled is Scheduled.NONE and self.lookahead:
            raise ValueError(
                f"lookahead={self.lookahead} is at odds with scheduled='none', which skips "
                "nothing: set lookahead=0 and lookaside=0, or scheduled to an operand"
            )
        if self.lookaside and not self.lookahead:
            raise ValueError(
                f"lookaside={self.lookaside} needs lookahead of at least 1: side moves come from "
                "later lines; set lookaside=0 or raise lookahead"
            )
        if self.lookaside >= self.lanes:
            raise ValueError(
                f"lookaside={self.lookaside} is at odds with lanes={self.lanes}: there are "
                f"{self.lanes - 1} other lanes; set lookaside to at most {self.lanes - 1}"
            )
        if self.scheduler is Scheduler.LEVELS:
            self._check_levels()
        return self

    def _check_levels(self) -> None:
        wanted = {
            "lanes": sum(map(len, LEVELS)),
            "lookahead": 2,
            "lookaside": 5,
            "move_shape": "T-mirrored",
            "map_order": "as_written",
        }
        for name, value in wanted.items():
            if (got := getattr(self, name)) != value:
                raise ValueError(
                    f"{name}={got} is at odds with scheduler='levels', whose levels are made for "
                    f"{name}={value}: set {name}={value}, or scheduler=most_candidates"
                )

    @property
    def pes(self) -> int:
        """PEs of the machine."""
        return self.tiles * self.rows * self.columns

    @property
    def scheduled_before(self) -> bool:
        """Whether software schedules before the run: weights, and no operand that the run makes."""
        match self.scheduling:
            case Scheduling.STATIC:
                return self.scheduled is Scheduled.WEIGHT
            case Scheduling.DYNAMIC:
                return False
            case _:
                assert_never(self.scheduling)

    @property
    def front_end(self) -> Mapping[str, float]:
        """Staging buffers, multiplexers, and schedulers where hardware schedules.

        In parts for 16 lanes that look into 7 other slots: `memory/README.md`.
        """
        if not self.lookahead:
            return {}
        rows = 0 if self.scheduled_before else self.tiles * self.rows
        sides, choices = rows + self.tiles * self.columns, len(self.moves) / 7
        return {
            "scheduler": rows * self.lanes / 16 * choices,
            "staging": sides * self.lanes * (self.lookahead + 1),
            "multiplexer": (rows * self.lanes + self.multipliers) * choices,
        }

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves (dt, dl): a free slot (t, l) may take the value of (t + dt, (l + dl) % lanes).

        In the order in which a lane looks at them. L(h, d), as Bit-Tactical calls it: (1,0)..(h,0),
        then (1,-1)..(1,-d). T(h, d): (1,0)..(h,0), then d side moves in pairs +j, -j, the j-th
        from line ((j-1) mod h) + 1.
        """
        ahead = [(dt, 0) for dt in range(1, self.lookahead + 1)]
        moves = tuple(ahead + [self._side(i) for i in range(self.lookaside)])
        match self.map_order:
            case MapOrder.AS_WRITTEN:
                return moves
            case MapOrder.SORTED:
                return tuple(sorted(moves))
            case _:
                assert_never(self.map_order)

    def _side(self, i: int) -> Move:
        j = i // 2 + 1
        line, lane = (j - 1) % self.lookahead + 1, j if i % 2 == 0 else -j
        match self.move_shape:
            case MoveShape.L:
                return 1, -(i + 1)
            case MoveShape.T:
                return line, lane
            case MoveShape.T_MIRRORED:
                return line, -lane
            case _:
                assert_never(self.move_shape)

    presets: ClassVar[Mapping[str, Preset]] = {
        "dadiannao": Preset(
            "Chen et al., DaDianNao: A Machine-Learning Supercomputer, MICRO 2014",
            {
                "tiles": 16,
                "rows": 16,
                "columns": 16,
                "lanes": 16,
                "scheduled": "none",
                "scheduling": "static",
                "lookahead": 0,
                "lookaside": 0,
                "move_shape": "T",
                "map_order": "as_written",
                "scheduler": "most_candidates",
                "fold_stem": True,
                "clock_mhz": 606,
                "dtype": "fp16",
                "buffer_a_kib": 32768,
                "buffer_a_banks": 64,
                "buffer_a_words": 4096,
                "buffer_b_kib": 2048,
                "buffer_b_banks": 32,
                "buffer_b_words": 4096,
                "buffer_out_kib": 2048,
                "buffer_out_banks": 32,
                "buffer_out_words": 8192,
                "dram": "ddr4-3200",
                "dram_channels": 1,
                "format_weight": "dense",
                "format_act": "dense",
                "format_grad_out": "dense",
            },
            "DaDianNao: 606 MHz, 2 MB of eDRAM a tile for weights, 4 MB for neurons, halved; its "
            "16-bit fixed point as fp16, HyperTransport's 25.6 GB/s as DDR4 of the same; banks "
            "and words ours: PEs never wait",
        ),
        "bit-tactical": Preset(
            "Delmas Lascorz et al., Bit-Tactical: A Software/Hardware Approach to Exploiting "
            "Value and Bit Sparsity in Neural Networks, ASPLOS 2019 (front end only: no bit "
            "skipping)",
            {
                "tiles": 16,
                "rows": 16,
                "columns": 16,
                "lanes": 16,
                "scheduled": "weight",
                "scheduling": "static",
                "lookahead": 2,
                "lookaside": 5,
                "move_shape": "T",
                "map_order": "sorted",
                "scheduler": "most_candidates",
                "fold_stem": True,
                "clock_mhz": 1000,
                "dtype": "fp16",
                "buffer_a_kib": 32768,
                "buffer_a_banks": 64,
                "buffer_a_words": 12288,
                "buffer_b_kib": 2048,
                "buffer_b_banks": 32,
                "buffer_b_words": 12288,
                "buffer_out_kib": 2048,
                "buffer_out_banks": 32,
                "buffer_out_words": 8192,
                "dram": "lpddr4-3200",
                "dram_channels": 8,
            },
            "ours: DaDianNao's buffers, three lines a cycle for the lookahead of 2, 1 GHz, fp16, "
            "LPDDR4 of 51.2 GB/s",
        ),
        "tensordash": Preset(
            "Mahmoud et al., TensorDash: Exploiting Sparsity to Accelerate Deep Neural Network "
            "Training, MICRO 2020",
            {
                "tiles": 16,
                "rows": 4,
                "columns": 4,
                "lanes": 16,
                "scheduled": "sparser",
                "scheduling": "dynamic",
                "lookahead": 2,
                "lookaside": 5,
                "move_shape": "T-mirrored",
                "map_order": "as_written",
                "scheduler": "levels",
                "fold_stem": False,
                "wgrad_reduces": "batch",
                "clock_mhz": 500,
                "dtype": "fp32",
                "buffer_a_kib": 16384,
                "buffer_a_banks": 64,
                "buffer_a_words": 3072,
                "buffer_b_kib": 16384,
                "buffer_b_banks": 64,
                "buffer_b_words": 3072,
                "buffer_out_kib": 16384,
                "buffer_out_banks": 64,
                "buffer_out_words": 512,
                "dram": "lpddr4-3200",
                "dram_channels": 4,
            },
            "TensorDash, table of the configuration: 500 MHz, three memories of 4 banks of 256 "
            "KiB a tile, three lines a cycle from scratchpads, 4 channels of LPDDR4-3200 (of 16 "
            "bits, as JEDEC has them); its zero compression off chip as a bitmask; words of the "
            "output ours, and that wgrad reduces over the batch",
            (
                Published(
                    "speed-up of training, mean of its networks",
                    1.95,
                    "Mahmoud et al., MICRO 2020, abstract of arXiv:2009.00748",
                ),
                Published(
                    "energy efficiency with on-chip and off-chip memory",
                    1.6,
                    "the same abstract",
                ),
            ),
        ),
    }
