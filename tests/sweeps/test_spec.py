"""What a sweep may say: grids, conditions, constraints; and every mistake that we can think of."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swatsim.errors import ConfigError
from swatsim.simulator.area import area_of
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.machines import machine
from swatsim.simulator.mechanism import MachineConfig
from swatsim.sweeps.expression import holds
from swatsim.sweeps.grids import Range
from swatsim.sweeps.spec import Spec, read_spec

TENSORDASH = {"preset": "tensordash"}
ALWAYS = {"parameters": {}, "grid": {"tiles": [4]}}


def labels(**entries: Any) -> list[str]:
    spec = Spec(**{"traces": ["t"], "machines": [TENSORDASH], **entries})
    return [point.label for point in spec.points()]


def one(**machine: Any) -> list[str]:
    return labels(machines=[{**TENSORDASH, **machine}])


def test_a_preset_alone_is_a_point_for_each_trace() -> None:
    assert labels() == ["tensordash"]
    spec = Spec(traces=["a", "b"], machines=[TENSORDASH, {"preset": "swat"}])
    assert [(p.trace, p.label) for p in spec.points()] == [
        ("a", "tensordash"),
        ("b", "tensordash"),
        ("a", "swat"),
        ("b", "swat"),
    ]


def test_a_grid_is_every_combination_and_equal_machines_are_one() -> None:
    assert one(grid={"rows": [1, 2], "columns": [2, 4]}) == [
        "tensordash[rows=1,columns=2]",
        "tensordash[rows=1]",
        "tensordash[rows=2,columns=2]",
        "tensordash[rows=2]",
    ]
    assert one(grid={"rows": [4, 4]}) == ["tensordash"]


def test_ranges_go_by_steps_and_by_factors() -> None:
    assert list(Range(**{"from": 1, "to": 64, "times": 2}).numbers()) == [1, 2, 4, 8, 16, 32, 64]
    assert list(Range(**{"from": 3, "to": 10, "step": 3}).numbers()) == [3, 6, 9]
    assert len(one(grid={"rows": {"from": 1, "to": 8, "times": 2}})) == 4


def test_conditional_parameters_are_varied_only_where_the_condition_holds() -> None:
    when = [{"parameters": {"scheduler": "most_candidates"}, "grid": {"lookahead": [1, 3]}}]
    assert one(grid={"scheduler": ["levels", "most_candidates"]}, when=when) == [
        "tensordash",
        "tensordash[lookahead=1,scheduler=most_candidates]",
        "tensordash[lookahead=3,scheduler=most_candidates]",
    ]


def test_constraints_narrow_the_grid() -> None:
    found = one(grid={"rows": [2, 4, 8], "tiles": [8, 16, 32]})
    assert len(found) == 9
    kept = labels(
        machines=[{**TENSORDASH, "grid": {"rows": [2, 4, 8], "tiles": [8, 16, 32]}}],
        constraints=["tiles * rows * columns * lanes == 4096"],
    )
    assert kept == ["tensordash[tiles=32,rows=2]", "tensordash", "tensordash[tiles=8,rows=8]"]


def test_a_constraint_may_be_of_area_and_of_peak_operations() -> None:
    machines = [{**TENSORDASH, "grid": {"rows": [2, 4, 8]}}]
    areas = [area_of(config, energy_table("7nm")) for config in map(_config, (2, 4, 8))]
    most = areas[1].mm2 if areas[1] else 0
    kept = labels(machines=machines, constraints=[f"area_mm2 <= {most!r}"], energy="7nm")
    assert kept == ["tensordash[rows=2]", "tensordash"]
    assert labels(machines=machines, constraints=["peak_tops > 4.1"]) == ["tensordash[rows=8]"]
    with pytest.raises(ConfigError, match="names area_mm2, and ideal has none: it is a bound"):
        labels(machines=[{"preset": "ideal"}], constraints=["area_mm2 <= 5"])


def _config(rows: int) -> MachineConfig:
    return machine("tensordash", rows=rows).config


@pytest.mark.parametrize(
    ("constraint", "truth"),
    [
        ("rows == 4", True),
        ("1 < rows <= 4 and not rows == 3", True),
        ("rows == 5 or rows * 2 + 1 == 9", True),
        ("scheduler != 'levels'", False),
        ("rows / 8 == 0.5", True),
        ("-rows < 0", True),
        ("fold_stem", False),
    ],
)
def test_a_constraint_is_arithmetic(constraint: str, truth: bool) -> None:
    values = {"rows": 4, "scheduler": "levels", "fold_stem": False}
    assert holds(constraint, values) is truth


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("__import__('os').system('true')", "is not allowed: only parameters"),
        ("rows.__class__", "is not allowed: only parameters"),
        ("[rows][0]", "is not allowed: only parameters"),
        ("rows ** 999999999", "is not allowed: only parameters"),
        ("'x' * 100000000000 == 'x'", "only numbers can be computed with"),
        ("'%99999999999d' % rows == 'x'", "only numbers can be computed with"),
        ("rows == " + "9" * 5000, "is longer than 300 characters"),
        ("rows", "gives 4, must give true or false"),
        ("row == 4", "unknown parameter 'row': did you mean 'rows'"),
        ("rows ==", "can't be worked out"),
        ("1if rows else 2", "can't be worked out"),  # of which Python would only warn
        ("rows == 4 or rows % 0 == 1", "can't be worked out"),  # nothing hides behind the first
        ("rows in 'abc'", "compare with == !="),
        ("rows == 'four'", "can't be compared"),
        ("", "can't be worked out"),
    ],
)
def test_a_constraint_that_is_none_is_refused(constraint: str, message: str) -> None:
    with pytest.raises(ConfigError, match="constraint") as caught:
        holds(constraint, {"rows": 4})
    assert message in str(caught.value)


@given(text=st.text(max_size=30))
def test_no_text_is_executed_or_crashes(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert holds(text, {"rows": 4}) in (True, False)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"traces": []}, "traces"),
        ({"machines": []}, "machines"),
        ({"trace": ["t"]}, "unknown parameter 'trace': did you mean 'traces'"),
        ({"machines": [{"preset": "tensordsh"}]}, "unknown machine 'tensordsh'.*'tensordash'"),
        (
            {"machines": [{**TENSORDASH, "grid": {"row": [1]}}]},
            "unknown parameter of tensordash 'row'",
        ),
        (
            {"machines": [{**TENSORDASH, "set": {"row": 1}}]},
            "unknown parameter of tensordash 'row'",
        ),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": 1, "to": 4}}}]},
            "either step or times",
        ),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": 9, "to": 4, "step": 1}}}]},
            "give no numbers",
        ),
        ({"machines": [{**TENSORDASH, "grid": {"rows": []}}]}, "rows of tensordash has no values"),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": 1, "to": 10**12, "step": 1}}}]},
            "more than 1000000 combinations",
        ),
        ({"machines": [{**TENSORDASH, "grid": {"rows": {"form": 1}}}]}, "did you mean 'from'"),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": 1.0, "to": 4, "step": 1}}}]},
            "from",
        ),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": True, "to": 4, "step": 1}}}]},
            "from",
        ),
        (
            {
                "machines": [
                    {**TENSORDASH, "grid": {"rows": {"from": 1, "to": 9, "times": 1.0000001}}}
                ]
            },
            "times=1.0000001 is not allowed",
        ),
        (
            {"machines": [{**TENSORDASH, "grid": {"rows": {"from": 1, "to": 2**63, "times": 2}}}]},
            "to=9223372036854775808 is not allowed",
        ),
        ({"machines": [TENSORDASH] * 10_001}, "at most 10000 items"),
        ({"constraints": ["rows == 4"] * 101}, "at most 100 items"),
        ({"machines": [{**TENSORDASH, "when": [ALWAYS] * 2001}]}, "at most 2000 items"),
        ({"steps": [0, 0]}, "steps=.* holds one twice"),
        ({"steps": []}, "steps"),
        ({"steps": [True]}, "steps"),
        ({"ops": []}, "ops"),
        ({"ops": ["fprop", "fprop"]}, "ops=.* holds one twice"),
        ({"traces": ["t", "t"]}, "traces=.* holds one twice"),
        ({"constraints": ["rows == 5"]}, "has no point"),
        ({"constraints": ["rows"]}, "must give true or false"),
        ({"ops": ["forward"]}, "ops"),
    ],
)
def test_a_mistake_is_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labels(**entries)


def test_more_points_than_anyone_wants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swatsim.sweeps.spec.MAX_POINTS", 10)
    with pytest.raises(ConfigError, match="more than 10 points: narrow its grids"):
        one(grid={"rows": [1, 2, 4], "columns": [1, 2, 4, 8]})


def test_files_that_are_no_specification_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read the sweep .*none\.toml: No such file"):
        read_spec(tmp_path / "none.toml")
    digits = "x = " + "9" * 5000
    for text in ("traces = [", "x = " + "[" * 5000, digits, "x = 'a\0b'", "x = 'caf\u00e9'"):
        (tmp_path / "bad.toml").write_bytes(text.encode("latin1"))
        with pytest.raises(ConfigError, match=r"bad\.toml is no TOML"):
            read_spec(tmp_path / "bad.toml")


def test_paths_are_relative_to_the_specification(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('traces = ["t"]\nenergy = "e.toml"\n[[machines]]\npreset = "swat"\n')
    spec = read_spec(path)
    assert spec.traces == [str(tmp_path / "t")]
    assert spec.energy == str(tmp_path / "e.toml")


def test_conditions_may_be_as_many_as_there_are_calls_in_a_stack() -> None:
    when = [{"parameters": {"rows": 4}, "grid": {"tiles": [1 + i % 16]}} for i in range(1500)]
    assert one(grid={"rows": [2, 4]}, when=when) == [
        "tensordash[rows=2]",
        f"tensordash[tiles={1 + 1499 % 16}]",
    ]


def test_too_many_points_are_counted_before_a_machine_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swatsim.sweeps.spec.machine", None)
    with pytest.raises(ConfigError, match="more than 100000 points: narrow its grids"):
        one(grid={"rows": {"from": 1, "to": 100_001, "step": 1}})
    with pytest.raises(ConfigError, match="more than 100000 points: narrow its grids"):
        labels(traces=[str(i) for i in range(100_001)])


def test_a_specification_that_has_no_end_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, why in {
        "/dev/zero": "it is not a file, but a device or a pipe",
        tmp_path / "pipe": "it is not a file, but a device or a pipe",
        tmp_path: "it is not a file, but a directory",
        tmp_path / "large": "it is larger than 1048576 bytes",
        tmp_path / "loop": "symbolic link",
        "a\0b": "its name can't be one",
    }.items():
        with pytest.raises(ConfigError, match=f"can't read the sweep .*{why}"):
            read_spec(path)
        if "\0" not in str(path):
            (tmp_path / "table.toml").unlink(missing_ok=True)
            (tmp_path / "table.toml").symlink_to(path)
            with pytest.raises(ConfigError, match=f"can't read the energy table .*{why}"):
                energy_table(tmp_path / "table.toml")
