"""Parameters and presets of `tensor_core`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from swatsim.simulator.mechanism import MachineConfig, Preset, Published
from swatsim.simulator.n_of_m import PatternName, packing_of, pattern_multiplexers
from swatsim.validation import count
from swatsim.workload.layer import OPERANDS, Operand

#: Of `sparse_operands`: each of them may be compressed.
ANY = "any"


def _operands(value: str) -> str:
    names = value.split("+")
    if value == ANY:
        return value
    if len(set(names)) < len(names) or not set(names) <= set(OPERANDS):
        raise ValueError(
            f"must be {ANY}, or some of {', '.join(OPERANDS)}, each once, joined by +, such as "
            "weight+act"
        )
    ordered = [operand for operand in OPERANDS if operand in names]
    return "+".join(ordered) if len(ordered) < len(OPERANDS) else ANY


def _peak(what: str, teraflops: float, source: str) -> Published:
    return Published(f"in fp16, {what}, peak", teraflops, source, " TFLOP/s")


class TensorCoreConfig(MachineConfig):
    """Geometry of a `tensor_core`, and what it may compress.

    A core computes a block of `tile_m` x `tile_n` outputs, `k_step` of what they sum at a time.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    cores: Annotated[int, count("cores; each computes a block at a time", "cores", 1, 2**16)]
    macs: Annotated[int, count("multiplications of a core and cycle", "MACs", 1, 2**16)]
    tile_m: Annotated[int, count("rows of a block of the output", "rows", 1, 2**16)]
    tile_n: Annotated[int, count("columns of a block of the output", "columns", 1, 2**16)]
    k_step: Annotated[
        int, count("products of an output that a step adds up, kept ones", "products", 1, 2**16)
    ]
    pattern: Annotated[
        PatternName,
        Field(
            description="N:M: of M values along what an op sums, at most N are not zero in the "
            "operand that is compressed; none: none is"
        ),
    ]
    sparse_operands: Annotated[
        str,
        AfterValidator(_operands),
        Field(
            description="which operands may be compressed, one at a time: any, or names joined by "
            "+, such as weight+act"
        ),
    ] = ANY
    prune_each_step: Annotated[
        bool,
        Field(
            description="the masks are new in each step: an op reads the operand that it "
            "compresses dense and writes it packed, through DRAM, before it runs"
        ),
    ] = False

    @property
    def pes(self) -> int:
        """The cores."""
        return self.cores

    @property
    def lanes(self) -> int:
        """Multipliers of a core."""
        return self.macs

    @property
    def packing(self) -> tuple[int, int] | None:
        """N and M of the pattern; None: nothing is compressed."""
        return packing_of(self.pattern)

    @property
    def front_end(self) -> Mapping[str, float]:
        """A multiplexer for each multiplier, of n:m."""
        return pattern_multiplexers(self.packing, self.multipliers)

    @property
    def prunes_each_step(self) -> bool:
        """Whether making masks costs bytes in every step."""
        return self.prune_each_step

    @property
    def allowed(self) -> frozenset[Operand]:
        """The operands of a recorded layer that may be compressed."""
        names = OPERANDS if self.sparse_operands == ANY else self.sparse_operands.split("+")
        return frozenset(operand for operand in OPERANDS if operand in names)

    presets: ClassVar[Mapping[str, Preset]] = {
        "stc": Preset(
            "a 2:4 tensor core as the artifact of Wu et al., Sparseloop: An Analytical Approach "
            "To Sparse Tensor Accelerator Modeling, MICRO 2022, models it (its 'fig15' setup): "
            "1024 multipliers; the block of 16 x 8 is ours",
            {
                "cores": 1,
                "macs": 1024,
                "tile_m": 16,
                "tile_n": 8,
                "k_step": 8,
                "pattern": "2:4",
                "clock_mhz": 1000,
                "dtype": "int8",
                "format_weight": "dense",
                "format_act": "dense",
                "format_grad_out": "dense",
            },
            "ours: 1 MiB a buffer, LPDDR4 of 25.6 GB/s, 1 GHz; values of 8 bits as in the artifact",
        ),
        "a100": Preset(
            "NVIDIA A100 Tensor Core GPU Architecture, white paper, 2020: 108 SMs of 1024 fp16 "
            "multiply-accumulates a cycle, 1410 MHz; 2:4 after Mishra et al., Accelerating Sparse "
            "Deep Neural Networks, arXiv:2104.08378, there of weights in inference; the block of "
            "128 x 256 is one of cuBLAS's and CUTLASS's, the step of 32 ours",
            {
                "cores": 108,
                "macs": 1024,
                "tile_m": 128,
                "tile_n": 256,
                "k_step": 32,
                "pattern": "2:4",
                "clock_mhz": 1410,
                "dtype": "fp16",
                "buffer_a_kib": 16384,
                "buffer_a_words": 2560,
                "buffer_b_kib": 16384,
                "buffer_b_words": 2560,
                "buffer_out_kib": 8192,
                "buffer_out_words": 2560,
                "dram": "hbm2",
                "dram_channels": 40,
                "dram_mb_per_s": 2_039_000,
                "format_weight": "dense",
                "format_act": "dense",
                "format_grad_out": "dense",
            },
            "A100: L2 of 40 MiB, cut into the three buffers in a way of ours, each with all of its "
            "5120 bytes a cycle; data sheet of the 80 GB SXM module: HBM2e of 2039 GB/s, five "
            "stacks, with latency and energy of HBM2",
            (
                _peak("dense", 312.0, "NVIDIA A100 80GB, data sheet, 2021"),
                _peak("2:4", 624.0, "NVIDIA A100 80GB, data sheet, 2021"),
            ),
            "white paper: 64 fp32 cores an SM, a 16th of its multipliers; ours: no fusion, as "
            "frameworks run it",
        ),
        "h100": Preset(
            "NVIDIA H100 Tensor Core GPU Architecture, white paper, 2022 (SXM5): 132 SMs of 2048 "
            "fp16 multiply-accumulates a cycle (fp8: macs=4096), 1830 MHz; 2:4 as in a100; block "
            "and step as there",
            {
                "cores": 132,
                "macs": 2048,
                "tile_m": 128,
                "tile_n": 256,
                "k_step": 32,
                "pattern": "2:4",
                "clock_mhz": 1830,
                "dtype": "fp16",
                "buffer_a_kib": 20480,
                "buffer_a_words": 5120,
                "buffer_b_kib": 20480,
                "buffer_b_words": 5120,
                "buffer_out_kib": 10240,
                "buffer_out_words": 5120,
                "dram": "hbm2",
                "dram_channels": 40,
                "dram_mb_per_s": 3_350_000,
                "format_weight": "dense",
                "format_act": "dense",
                "format_grad_out": "dense",
            },
            "H100 SXM5: L2 of 50 MiB, cut as in a100, its words ours, so many that cores do not "
            "wait: clusters of cores share what they load; data sheet: HBM3 of 3.35 TB/s, five "
            "stacks, with latency and energy of HBM2",
            (
                _peak("dense", 989.4, "NVIDIA H100 SXM5, white paper"),
                _peak("2:4", 1978.9, "NVIDIA H100 SXM5, white paper"),
            ),
            "white paper: 128 fp32 cores an SM, a 16th of its multipliers; ours: no fusion, as "
            "frameworks run it",
        ),
    }
