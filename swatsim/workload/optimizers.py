"""What an optimizer does with each trained value in a step, as torch writes it out.

sgd: momentum and weight decay (Sutskever et al., ICML 2013, as torch.optim.SGD). adamw: Loshchilov
and Hutter, ICLR 2019, algorithm 2, as torch.optim.AdamW. The step's few scalars are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swatsim.workload.work import Extent, Part, Work

#: What does not last beyond the step; values and the optimizer's state do.
_NAMES = {"g": "gradient", "d": "step", "e": "deviation"}

#: Function, what it reads, what it writes: p the value, g its gradient, m and v its momenta.
_RULES: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "sgd": (
        ("add", "g p", "d"),
        ("mul_", "m", "m"),
        ("add_", "m d", "m"),
        ("add_", "p m", "p"),
    ),
    "adamw": (
        ("mul_", "p", "p"),
        ("lerp_", "m g", "m"),
        ("mul_", "v", "v"),
        ("addcmul_", "v g", "v"),
        ("sqrt", "v", "d"),
        ("div", "d", "e"),
        ("add_", "e", "e"),
        ("addcdiv_", "p m e", "p"),
    ),
}


def works(optimizer: str, trained: int) -> list[Work]:
    """Return what an optimizer ("sgd", "adamw") does with so many trained values."""
    parts = {it: Part(_NAMES.get(it, f"state.{it}"), Extent(0, trained)) for it in "pgmvde"}
    return [
        Work(
            "",
            "optimizer",
            function,
            tuple(parts[it] for it in reads.split()),
            tuple(parts[it] for it in writes.split()),
            elementwise=True,
        )
        for function, reads, writes in _RULES[optimizer]
    ]
