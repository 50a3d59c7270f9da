"""A sweep that is said on a command line: traces, presets, and values of parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swatsim.errors import ConfigError, unknown
from swatsim.simulator.machines import find_preset
from swatsim.sweeps.expression import Value

#: Between values of a parameter.
COMMA = ","


def entries_of(
    traces: Sequence[str], presets: Sequence[str], settings: Mapping[str, str], **others: Any
) -> dict[str, Any]:
    """Return the entries of a sweep's specification, as a TOML file would have them.

    A parameter with one value is set, one with several is varied, on those of the machines that
    have it.

    Parameters
    ----------
    traces : sequence of str
        Paths.
    presets : sequence of str
        Of the machines; "MODULE:PRESET" of one from outside.
    settings : mapping of str to str
        A parameter's values, with commas between them.
    **others
        Further entries; those that are None or empty are left out.

    Raises
    ------
    ConfigError
        If a preset is unknown, none of the machines has a parameter, or a value is missing.
    """
    fields = {preset: find_preset(preset)[1].config_type.model_fields for preset in presets}
    for name in settings:
        if not any(name in own for own in fields.values()):
            every = {field for own in fields.values() for field in own}
            raise ConfigError(unknown(f"parameter of {' or '.join(presets)}", name, every))
        if not all(it.strip() for it in settings[name].split(COMMA)):
            raise ConfigError(
                f"{name}={settings[name]} is not allowed: a value is missing; give one, or several "
                "with a comma between them"
            )
    values = {name: [value_of(it) for it in text.split(COMMA)] for name, text in settings.items()}
    machines = []
    for preset, own in fields.items():
        mine = {name: listed for name, listed in values.items() if name in own}
        fixed = {name: listed[0] for name, listed in mine.items() if len(listed) == 1}
        grid = {name: listed for name, listed in mine.items() if len(listed) > 1}
        parts = {"set": fixed, "grid": grid}
        machines.append({"preset": preset, **{name: part for name, part in parts.items() if part}})
    whole = {"traces": list(traces), **others, "machines": machines}
    return {name: value for name, value in whole.items() if value not in (None, [], (), False)}


def value_of(text: str) -> Value:
    """Return a value as TOML would have it."""
    word = text.strip()
    if word in ("true", "false"):
        return word == "true"
    return int(word) if word.removeprefix("-").isdecimal() else word


def as_toml(entries: Mapping[str, Any]) -> str:
    """Return a specification's entries as a TOML file."""
    return "\n".join(_lines(entries)) + "\n"


def _lines(entries: Mapping[str, Any]) -> Iterator[str]:
    for name, value in entries.items():
        if name != "machines":
            yield f"{name} = {_word(value)}"
    for machine in entries["machines"]:
        yield ""
        yield "[[machines]]"
        for name, value in machine.items():
            yield f"{name} = {_word(value)}"


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_word(one)}" for name, one in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_word, value))}]"
    # a text of JSON is one of TOML, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
