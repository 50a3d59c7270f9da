"""Rules of `lane_array`, one at a time, on schedules that can be followed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import swatsim
from swatsim.errors import ConfigError
from swatsim.simulator.machines.lane_array.config import LEVELS, LaneArrayConfig
from swatsim.simulator.machines.lane_array.mapping import scheduled_operand


def linear_op(weight: np.ndarray, samples: int = 1) -> swatsim.Op:
    """fprop of a linear layer with dense activations: a stream a row of `weight`."""
    layer = swatsim.Layer(name="fc", kind="linear", C=weight.shape[1], K=weight.shape[0])
    act = np.ones((samples, weight.shape[1]), bool)
    return swatsim.Op(layer, "fprop", weight=weight.astype(bool), act=act)


def small(**parameters: object) -> swatsim.Machine:
    """Two rows, two columns, one tile, four lanes, lookahead 1, no lookaside; weights scheduled."""
    sizes = {"tiles": 1, "rows": 2, "columns": 2, "lanes": 4, "lookahead": 1, "lookaside": 0}
    return swatsim.machine("bit-tactical", **{**sizes, **parameters})


def stream(*lines: str) -> list[int]:
    return [int(bit) for bit in "".join(lines)]


def cycles(machine: swatsim.Machine, *rows: list[int]) -> int:
    return machine.simulate_op(linear_op(np.array(rows))).cycles_compute


def test_nothing_to_skip_costs_every_line() -> None:
    assert cycles(small(), stream("1111", "1111", "1111")) == 3


def test_a_value_moves_ahead_within_its_lane() -> None:
    assert cycles(small(), stream("1010", "0101")) == 1
    assert cycles(small(), stream("1010", "1000")) == 2


def test_a_value_moves_aside_from_the_next_line_only() -> None:
    assert cycles(small(lookaside=1, move_shape="L"), stream("0100", "1000")) == 1
    assert cycles(small(lookaside=1, move_shape="L"), stream("1000", "1000")) == 1  # lane 1 takes 0
    assert cycles(small(lookaside=1, move_shape="T"), stream("1000", "1000")) == 1  # lane 3 takes 0
    assert cycles(small(lookaside=0), stream("1000", "1000")) == 2


def test_an_empty_line_is_dropped_at_most_lookahead_times_in_a_row() -> None:
    empty = stream("0000")
    assert cycles(small(), empty) == 0
    assert cycles(small(), empty * 2) == 1
    assert cycles(small(), empty * 4) == 2
    assert cycles(small(lookahead=2), empty * 3) == 1
    assert cycles(small(lookahead=2), empty * 5) == 1


def test_a_line_is_dropped_only_if_it_is_empty_in_every_row() -> None:
    assert cycles(small(), stream("0000", "1111"), stream("1111", "1111")) == 2


def test_the_lane_with_most_or_fewest_candidates_goes_first() -> None:
    # lanes 0 and 1 are free; lane 1 sees both values, lane 0 only one of them. Served first, lane
    # 1 looks aside and takes the one that lane 0 could have had
    line = stream("0011", "1100")
    assert cycles(small(lookaside=1, move_shape="L", scheduler="most_candidates"), line) == 2
    assert cycles(small(lookaside=1, move_shape="L", scheduler="fewest_candidates"), line) == 1


def test_tiles_of_a_group_wait_for_the_slowest_and_column_sets_multiply() -> None:
    full, quick = stream("1111", "1111"), stream("1000", "0000")
    op = linear_op(np.array([full, full, quick, quick]), samples=5)
    one, two = small(tiles=1).simulate_op(op), small(tiles=2).simulate_op(op)
    assert one.cycles_compute == 3 * (2 + 1)
    assert two.cycles_compute == 3 * 2
    assert two.lane_cycles_tile_sync == 5 * 2 * 4  # 5 windows, 2 rows, 4 lanes, 1 cycle
    assert two.lane_cycles_unmapped == 2 * 2 * 2 * 4  # 1 column missing: 2 tiles, rows, cycles


#: What a machine has that skips nothing.
NOTHING = {"lookahead": 0, "move_shape": "T", "map_order": "as_written"}


def test_row_sets_that_are_left_take_the_tiles_of_others() -> None:
    full, quick = stream("1111", "1111"), stream("1000", "0000")
    op = linear_op(np.array([quick, quick, full, full, quick, quick, full, full]), samples=4)
    wanted = np.zeros((4, 8), bool)
    wanted[0, 0] = wanted[1, 5] = True  # the first column set: row sets 0 and 2
    wanted[3, [2, 5]] = True  # the second: row sets 1 and 2
    run = replace(op, output=wanted)
    counters = small(tiles=2).simulate_op(run)
    assert counters.cycles_compute == 1 + 2
    assert counters.words_a == 2 * (2 + 2) * 8  # two rows of each row set that runs
    assert counters.words_b == 2 * (2 + 2) * 8
    assert counters.lane_cycles_tile_sync == 2 * 2 * 4  # row set 2 waits for row set 1
    assert counters.lane_cycles_unmapped == 0
    assert small(tiles=2).simulate_dense(run).cycles_compute == 2 * 2 * 2
    assert small(scheduled="none", **NOTHING).simulate_op(run).cycles_compute == 2 * 4 * 2


def test_dadiannaos_cycles_are_the_closed_formula() -> None:
    rng = np.random.default_rng(2)
    layer = swatsim.Layer(name="c", C=40, K=70, H=9, W=9, R=3, S=3, padding=1, stride=2)
    op = swatsim.Op(
        layer, "fprop", weight=rng.random((70, 40, 3, 3)) < 0.1, act=rng.random((3, 40, 9, 9)) < 0.1
    )
    machine = swatsim.machine("dadiannao", tiles=2)
    column_sets, row_sets, lines = 3 * 2, 5, 9 * 3  # ceil(25/16), ceil(70/16), 9 * ceil(40/16)
    counters = machine.simulate_op(op)
    assert counters.cycles_compute == column_sets * -(-row_sets // 2) * lines
    assert counters == machine.simulate_dense(op)


def test_the_sparser_operand_is_scheduled_and_ties_have_a_rule() -> None:
    layer = swatsim.Layer(name="fc", kind="linear", C=10, K=10)
    config = swatsim.machine("tensordash").config
    half, dense = np.eye(10, dtype=bool), np.ones((10, 10), bool)

    def chosen(op: str, **masks: np.ndarray) -> str | None:
        return scheduled_operand(swatsim.Op(layer, op, **masks), config)

    assert chosen("fprop", weight=half, act=dense) == "weight"
    assert chosen("fprop", weight=dense, act=half) == "act"
    assert chosen("fprop", weight=half, act=half) == "weight"
    assert chosen("dgrad", weight=half, grad_out=half) == "weight"
    assert chosen("wgrad", act=half, grad_out=half) == "act"
    assert chosen("wgrad", act=dense, grad_out=half) == "grad_out"


def test_an_op_without_the_scheduled_operand_runs_dense() -> None:
    layer = swatsim.Layer(name="fc", kind="linear", C=32, K=8)
    zeros = np.zeros((2, 32), bool)
    op = swatsim.Op(layer, "wgrad", act=zeros, grad_out=np.zeros((2, 8), bool))
    machine = swatsim.machine("bit-tactical")
    assert machine.simulate_op(op) == machine.simulate_dense(op)


def test_the_stem_is_folded() -> None:
    layer = swatsim.Layer(name="conv1", C=3, K=16, H=224, W=224, R=7, S=7, stride=2, padding=3)
    op = swatsim.Op(
        layer, "fprop", weight=np.ones((16, 3, 7, 7), bool), act=np.ones((1, 3, 224, 224), bool)
    )
    column_sets = 112 * 112 // 16
    folded = swatsim.machine("dadiannao")
    assert folded.simulate_op(op).cycles_compute == column_sets * 4 * 4  # 4x4 taps, 12 channels
    plain = swatsim.machine("dadiannao", fold_stem=False)
    assert plain.simulate_op(op).cycles_compute == column_sets * 7 * 7


@pytest.mark.parametrize("scheduled", ["none", "weight", "act"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_dilated_stem_is_not_folded(scheduled: str, dilation: int) -> None:
    layer = swatsim.Layer(
        name="stem", C=3, K=4, H=13, W=13, R=3, S=3, stride=2, padding=1, dilation=dilation
    )
    rng = np.random.default_rng(4)
    op = swatsim.Op(
        layer, "fprop", weight=rng.random((4, 3, 3, 3)) < 0.4, act=rng.random((1, 3, 13, 13)) < 0.4
    )
    parameters = {"tiles": 1, "scheduled": scheduled}
    if scheduled == "none":
        parameters |= {"lookahead": 0, "lookaside": 0}
    folded = swatsim.machine("bit-tactical", fold_stem=True, **parameters).simulate_op(op)
    plain = swatsim.machine("bit-tactical", fold_stem=False, **parameters).simulate_op(op)
    assert (folded == plain) == (dilation == 2)


@pytest.mark.parametrize(("lanes", "rows"), [(4, 16), (16, 4), (8, 8)])
def test_depthwise_filters_are_laid_out_as_many_together_as_lanes_and_rows_allow(
    lanes: int, rows: int
) -> None:
    layer = swatsim.Layer(name="dw", C=20, K=20, H=6, W=6, R=3, S=3, padding=1, groups=20)
    op = swatsim.Op(
        layer, "fprop", weight=np.ones((20, 1, 3, 3), bool), act=np.ones((2, 20, 6, 6), bool)
    )
    machine = swatsim.machine("dadiannao", lanes=lanes, rows=rows, columns=16, tiles=3)
    together = min(lanes, rows)
    counters = machine.simulate_op(op)
    assert counters.cycles_compute == 2 * 3 * -(-20 // together) * 9  # samples, column sets, taps
    assert counters.lane_cycles_idle == 2 * 36 * 20 * 9 * (lanes - 1)


# ---- configuration -----------------------------------------------------------------------------


def test_moves_are_those_of_the_papers() -> None:
    t = swatsim.machine("bit-tactical", map_order="as_written").config
    assert t.moves == ((1, 0), (2, 0), (1, 1), (1, -1), (2, 2), (2, -2), (1, 3))
    shape = {"move_shape": "L", "lookahead": 4, "lookaside": 3, "map_order": "as_written"}
    l_shape = swatsim.machine("bit-tactical", **shape).config
    assert l_shape.moves == ((1, 0), (2, 0), (3, 0), (4, 0), (1, -1), (1, -2), (1, -3))
    dash = swatsim.machine("tensordash").config
    assert dash.moves == ((1, 0), (2, 0), (1, -1), (1, 1), (2, -2), (2, 2), (1, -3))
    ordered = swatsim.machine("bit-tactical").config
    assert ordered.moves == tuple(sorted(t.moves))


def test_lanes_of_one_level_never_compete() -> None:
    moves = swatsim.machine("tensordash").config.moves
    assert sorted(lane for level in LEVELS for lane in level) == list(range(16))
    for level in LEVELS:
        slots = [(dt, (lane + dl) % 16) for lane in level for dt, dl in moves]
        assert len(set(slots)) == len(slots)


def test_no_two_moves_of_any_config_reach_the_same_slot() -> None:
    for shape in ("L", "T", "T-mirrored"):
        for lanes in (1, 2, 3, 4, 7, 16):
            for lookaside in range(lanes):
                config = swatsim.machine(
                    "bit-tactical", move_shape=shape, lanes=lanes, lookaside=lookaside, lookahead=3
                ).config
                slots = {(dt, dl % lanes) for dt, dl in config.moves}
                assert len(slots) == len(config.moves) == 3 + lookaside


@pytest.mark.parametrize(
    ("preset", "change", "complaint"),
    [
        ("tensordesh", {}, "unknown machine 'tensordesh': did you mean 'tensordash'?"),
        ("tensordash", {"lokahead": 2}, "unknown parameter 'lokahead': did you mean 'lookahead'?"),
        ("tensordash", {"rows": 0}, "rows=0 is not allowed: must be greater than or equal to 1"),
        ("tensordash", {"rows": "many"}, "rows='many' is not allowed: must be a valid integer"),
        ("tensordash", {"lanes": 65}, "lanes=65 is not allowed"),
        ("tensordash", {"lanes": 8}, "lanes=8 is at odds with scheduler='levels'"),
        ("tensordash", {"lookahead": 4}, "set lookahead=2, or scheduler=most_candidates"),
        ("tensordash", {"move_shape": "T"}, "move_shape=T is at odds with scheduler='levels'"),
        (
            "bit-tactical",
            {"lookaside": 16},
            "there are 15 other lanes; set lookaside to at most 15",
        ),
        ("bit-tactical", {"lookahead": 0}, "lookaside=5 needs lookahead of at least 1"),
        ("bit-tactical", {"scheduled": "all"}, "must be 'none', 'weight', 'act', 'grad_out' or"),
        ("dadiannao", {"lookahead": 2}, "at odds with scheduled='none', which skips nothing"),
    ],
)
def test_refuses(preset: str, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        swatsim.machine(preset, **change)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_changed_preset_says_so_in_its_name() -> None:
    assert swatsim.machine("tensordash").name == "tensordash"
    assert swatsim.machine("tensordash", rows="4").name == "tensordash"
    assert swatsim.machine("tensordash", rows=1, tiles=2).name == "tensordash[tiles=2,rows=1]"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("tensordash[rows=4,rows=2]", "has a parameter twice"),
        ("tensordash[rows=4", "expected NAME"),
        ("tensordash[]", "expected NAME"),
        ("tensordash[=4]", "expected NAME"),
        ("tensordash[rowz=4]", "did you mean 'rows'"),
    ],
)
def test_parameters_in_brackets_that_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        swatsim.machine(name)


def test_parameters_can_stand_in_brackets_as_in_the_names_of_results() -> None:
    label = swatsim.machine("tensordash", rows=1, tiles=2).name
    assert swatsim.machine(label) == swatsim.machine("tensordash", rows=1, tiles=2)
    with pytest.raises(ConfigError, match="rows is given twice, in 'tensordash"):
        swatsim.machine(label, rows=2)


def test_a_config_is_frozen() -> None:
    config = swatsim.machine("tensordash").config
    assert isinstance(config, LaneArrayConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.rows = 3


# ---- wgrad over the batch ------------------------------------------------------------------------


def wgrad_op(layer: swatsim.Layer, samples: int, density: float) -> swatsim.LoweredOp:
    rng = np.random.default_rng(0)
    act = np.ones(layer.shape_of("act", samples), bool)
    grad_out = rng.random(layer.shape_of("grad_out", samples)) < density
    return swatsim.LoweredOp(layer, "wgrad", act=act, grad_out=grad_out)


def test_samples_of_a_linear_layer_fill_the_lanes_of_its_wgrad() -> None:
    """64 samples are four lines in all, or a line each with one value."""
    op = wgrad_op(swatsim.Layer(name="fc", kind="linear", C=256, K=256), 64, 0.1)
    alone = swatsim.machine("tensordash", wgrad_reduces="positions")
    together = swatsim.machine("tensordash")
    assert alone.simulate_dense(op).cycles_compute == 16_384
    assert alone.simulate_op(op).cycles_compute == 16_384
    assert together.simulate_dense(op).cycles_compute == 1024
    assert together.simulate_op(op).cycles_compute == 512
    assert together.simulate_dense_operands(op).cycles_compute == 1024


def test_a_line_holds_positions_of_two_samples() -> None:
    """Three positions a sample: six are two lines of four, and two lines each by themselves."""
    op = wgrad_op(swatsim.Layer(name="x", C=1, K=1, H=1, W=3), 2, 1.0)
    parameters = {"scheduled": "none", "lookahead": 0, "wgrad_reduces": "batch"}
    assert small(**parameters).simulate_op(op).cycles_compute == 2
    wide = small(**parameters, lanes=2).simulate_op(op)
    assert wide.cycles_compute == 3
    assert (wide.words_a, wide.words_b) == (6, 6)
    assert (
        small(**{**parameters, "wgrad_reduces": "positions"}, lanes=2)
        .simulate_op(op)
        .cycles_compute
        == 4
    )
