"""The contract of a whole machine: its configuration, what it counts, and what it shows.

A `Mechanism` and its `MachineConfig` are all that the package knows of a machine, of ours as of an
outsider's: with them come the memory system, energy, sweeps, estimates and timelines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Busy, Timeline
from swatsim.simulator.vector import MULTIPLIERS_PER_LANE, SystemConfig
from swatsim.workload.convolutions import Lowering
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import MaskName

#: Of a machine: lane-cycles of 2**31 cycles are then counted in 63 bits.
MAX_MULTIPLIERS = 2**32


class Published(NamedTuple):
    """A figure that a paper or a data sheet gives for a design, on workloads of its own.

    No figure of ours stands beside it: a user's trace is not the paper's workload. `unit` stands
    behind the value; that of a factor is "x".
    """

    what: str
    value: float
    source: str
    unit: str = "x"


#: Where `vector_lanes` of most presets comes from.
OUR_VECTOR_UNIT = (
    f"ours: a lane for {MULTIPLIERS_PER_LANE} multipliers, as NVIDIA's A100 and H100 have them; no "
    "fusion, as frameworks run it"
)


class Preset(NamedTuple):
    """A published design: the parameters of a mechanism, and where they come from.

    `memory` says where those of the memory system come from: papers say less of it; `vector` the
    same of the vector unit, which most papers leave out.
    """

    citation: str
    parameters: Mapping[str, Any]
    memory: str
    published: tuple[Published, ...] = ()
    vector: str = OUR_VECTOR_UNIT


class MachineConfig(SystemConfig):
    """Base of the configurations of machines: frozen, its fields and their relations checked.

    Memory system, vector unit and energy are the same for all; a mechanism adds its geometry. A
    subclass has `pes` and `lanes`, as fields or as properties; one that lacks them can't be
    defined. It may have `multipliers` as a field, and the two follow from that.

    Raises
    ------
    TypeError
        If a class derived from it lacks what is asked of one.
    ConfigError
        If a value is out of range, or at odds with another.
    """

    #: By name; no two machines may have one of the same.
    presets: ClassVar[Mapping[str, Preset]] = {}
    #: Whether somebody could make it; a bound has no area.
    is_device: ClassVar[bool] = True

    dgrad_lowering: Annotated[
        Lowering,
        Field(
            description="dgrad of a strided layer: split in stride x stride convolutions over the "
            "dense gradients, or one over gradients dilated with zeros; of a transposed "
            "convolution it is fprop that is lowered"
        ),
    ] = "split"

    if TYPE_CHECKING:

        @property
        def pes(self) -> int:
            """PEs of the machine."""

        @property
        def lanes(self) -> int:
            """Multipliers of a PE."""

        @property
        def multipliers(self) -> int:
            """Multipliers of all PEs."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        # not in this class: a field of that name would shadow it, and pydantic warns of that
        if "multipliers" not in cls.model_fields and not hasattr(cls, "multipliers"):
            cls.multipliers = property(_multipliers)  # type: ignore[assignment, method-assign]
        for name in ("pes", "lanes"):
            if name not in cls.model_fields and not hasattr(cls, name):
                needed = f"needs a field or a property {name}, of whole numbers"
                raise TypeError(f"{cls.__name__} has no {name}: a machine's configuration {needed}")

    @model_validator(mode="after")
    def _can_be_counted(self) -> MachineConfig:
        if self.multipliers > MAX_MULTIPLIERS:
            raise ValueError(
                f"it would have {self.multipliers} multipliers, and of at most {MAX_MULTIPLIERS} "
                "the cycles can be counted: make its array smaller"
            )
        return self

    @model_validator(mode="after")
    def _can_be_kept(self) -> MachineConfig:
        if self.packing and self.keep_on_chip:
            raise ValueError(
                "keep_on_chip=True is at odds with an operand that runs n:m: dgrad and wgrad would "
                "pack it along different axes; set keep_on_chip=false, or no pattern"
            )
        return self

    @property
    def vector_width(self) -> int:
        """Values a cycle of the vector unit."""
        if self.vector_lanes != "auto":
            return self.vector_lanes
        return max(1, self.multipliers // MULTIPLIERS_PER_LANE)

    @property
    def packing(self) -> tuple[int, int] | None:
        """The n and m of an operand that runs n:m; None: the machine has none such."""
        return None

    @property
    def prunes_each_step(self) -> bool:
        """Whether that operand is packed anew before each op: read dense, written packed."""
        return False

    @property
    def front_end(self) -> Mapping[str, float] | None:
        """How many of which parts of a front end stand before the multipliers.

        Parts are those of [area.front_end] in tables of energies and areas. None: it is not known;
        so of a machine that does not say.
        """
        return None

    @property
    def accumulator_bank_kib(self) -> float:
        """Size of a bank of accumulators in a PE; 0: sums stay in registers."""
        return 0.0

    @property
    def accumulator_banks(self) -> int:
        """Banks of accumulators in all PEs together."""
        return 0


def _multipliers(config: MachineConfig) -> int:
    return config.pes * config.lanes


def every_mask(op: LoweredOp, config: MachineConfig) -> tuple[MaskName, ...]:
    """Return the names of all masks, as `Mechanism.looks_at` of a machine that looks at them."""
    return (*op.operands, "output")


@dataclass(frozen=True)
class Mechanism:
    """One entry of MACHINES: a config type and the functions that use it.

    Each function is pure: it is given an op as `swatsim.lower` makes it, and a config of
    `config_type`.

    Parameters
    ----------
    name : str
    summary : str
        One line for people.
    config_type : type of MachineConfig
    simulate_op, simulate_dense : callable of (LoweredOp, config) to Counters
    alternatives : mapping of str to callable of (LoweredOp, config) to Counters
        Other dense baselines, which a report shows beside the first.
    simulate_dense_operands : callable of (LoweredOp, config) to Counters, optional
        `simulate_op` of the op's shapes where no value of the operands is zero, its choices (the
        operand whose zeros are skipped) those that it makes for the op itself. Without it all-ones
        masks are run, and choices are theirs.
    timeline : callable of (LoweredOp, config, int) to Timeline, optional
        What one tile does, cycle by cycle; tiles are numbered from 0.
    tile : str
        Of a machine with a timeline, what it shows one of, for people: "a PE".
    busy : callable of (LoweredOp, config) to Busy, optional
        In how many of the op's compute cycles, as `simulate_op` counts them, each tile of the
        machine has work of its own, and waits for slower ones: for the timeline of a step.
    by_image : callable of (LoweredOp, config) to config or None
        With which configuration the op's images, run one by one, give together exactly the op's
        counters, each of them but what is seen of a pattern: what is chosen by a look at the whole
        op must be chosen in it. None where no configuration does, as where images share a set of
        streams; so of a machine that does not say. Images of a product of activations are those
        groups of the op that a sample has (`LoweredOp.of_samples`).
    in_rounds : callable of (LoweredOp, config) to (config, int) or None
        Of an op whose images share the machine: with which configuration, and how many at a time.
        Cut into so many, in order, they take together exactly the op's compute cycles; or so nearly
        as rounds that the machine does not have can end (a line that is not filled, a cycle that is
        rounded up), where all images are one round, and there would be too many values to lay out.
        None: all of them at once; so of a machine that does not say.
    reads_images : callable of (LoweredOp, config) to bool
        Whether compute cycles depend on the masks of what each image has for itself (act, grad_out,
        of a product of activations weight too); if not they are the same for all images of which
        the same outputs are wanted. True of a machine that does not say.
    looks_at : callable of (LoweredOp, config) to collection, optional
        Names of the masks, of operands and "output", that the op's counters depend on: all others
        may be any, and the counters are the same but for the op's `macs_effectual` among the
        products. Which names these are is all that the dense baselines, and operands without a
        zero, may take from the masks. Counts are kept from one run to the next by it; of a machine
        that does not say, all of them depend on every mask.
    room : callable of (Layer, op's name, config) to int
        Bytes that an op of a lowered layer takes beside its masks at least, however finely it is
        cut into pieces: what takes too much is refused before anything is simulated. 0 of a machine
        that does not say.

    Raises
    ------
    ConfigError
        If the name is no word, the type none of a configuration, or a function none.
    """

    name: str
    summary: str
    config_type: type[MachineConfig]
    simulate_op: Callable[[LoweredOp, Any], Counters]
    simulate_dense: Callable[[LoweredOp, Any], Counters]
    alternatives: Mapping[str, Callable[[LoweredOp, Any], Counters]] = field(default_factory=dict)
    simulate_dense_operands: Callable[[LoweredOp, Any], Counters] | None = None
    timeline: Callable[[LoweredOp, Any, int], Timeline] | None = None
    tile: str = ""
    busy: Callable[[LoweredOp, Any], Busy] | None = None
    by_image: Callable[[LoweredOp, Any], MachineConfig | None] = lambda op, config: None
    reads_images: Callable[[LoweredOp, Any], bool] = lambda op, config: True
    in_rounds: Callable[[LoweredOp, Any], tuple[MachineConfig, int] | None] = lambda op, config: (
        None
    )
    looks_at: Callable[[LoweredOp, Any], Collection[MaskName]] | None = None
    room: Callable[[Layer, OpName, Any], int] = lambda layer, name, config: 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ConfigError(f"a mechanism's name={self.name!r} is not allowed: must be a word")
        config: Any = self.config_type
        if not (isinstance(config, type) and issubclass(config, MachineConfig)):
            raise ConfigError(
                f"mechanism {self.name!r}: config_type={config!r} is not allowed: must be a class "
                "derived from swatsim.MachineConfig"
            )
        for name in ("simulate_op", "simulate_dense"):
            if not callable(getattr(self, name)):
                raise ConfigError(
                    f"mechanism {self.name!r}: {name} is not allowed: must be a function of an op "
                    "and a configuration"
                )
