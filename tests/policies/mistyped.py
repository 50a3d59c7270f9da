"""What a type checker refuses of policies: mypy reads this, and warns of each ignore that is none.

`test_every_policy.py` holds that swatsim refuses the same when it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from swatsim.policies import (
    SET,
    SNFS,
    Bdwp,
    ByScore,
    Dense,
    ErdosRenyiKernel,
    MeProp,
    Mvue,
    Periodic,
    Phased,
    Policy,
    RigL,
    Slope,
    SRigL,
    SrSte,
    StaticRandom,
    SwatErk,
    SwatM,
    SwatStructured,
    SwatU,
    TopKast,
    Transposable,
    Uniform,
    View,
    Vnm,
)


def score(it: View) -> object:
    return it.values


REFUSED: dict[str, Callable[[], object]] = {
    "Bdwp": lambda: Bdwp(2, 8, along="K"),  # type: ignore[call-arg]
    "ByScore": lambda: ByScore(score, 0.9, evry=7),  # type: ignore[call-arg]
    "Dense": lambda: Dense(sparsity=0.9),  # type: ignore[call-arg]
    "MeProp": lambda: MeProp(0.9, unifid=True),  # type: ignore[call-arg]
    "Mvue": lambda: Mvue(2, 4, sede=1),  # type: ignore[call-arg]
    "Periodic": lambda: Periodic(SwatU(0.9), 7, warm_up=3),  # type: ignore[call-arg]
    "Phased": lambda: Phased([(0, Dense())], warmup=3),  # type: ignore[call-arg]
    "RigL": lambda: RigL(0.9, evry=7),  # type: ignore[call-arg]
    "SET": lambda: SET(0.9, zeta=0.3),  # type: ignore[call-arg]
    "SNFS": lambda: SNFS(0.9, alpha=0.9),  # type: ignore[call-arg]
    "Slope": lambda: Slope(2, 4, sede=1),  # type: ignore[call-arg]
    "SRigL": lambda: SRigL(0.9, gamma=0.3),  # type: ignore[call-arg]
    "SrSte": lambda: SrSte(2, 4, lambda_w=0.1),  # type: ignore[call-arg]
    "StaticRandom": lambda: StaticRandom(0.9, sede=1),  # type: ignore[call-arg]
    "SwatErk": lambda: SwatErk(0.9, first_dense=True),  # type: ignore[call-arg]
    "SwatM": lambda: SwatM(0.9, evry=7),  # type: ignore[call-arg]
    "SwatStructured": lambda: SwatStructured(0.9, units="filter"),  # type: ignore[call-arg]
    "SwatU": lambda: SwatU(0.9, first_convdense=True),  # type: ignore[call-arg]
    "TopKast": lambda: TopKast(0.9, backward=0.5),  # type: ignore[call-arg]
    "Transposable": lambda: Transposable(2, evry=7),  # type: ignore[call-arg]
    "Vnm": lambda: Vnm(2, 8, V=64),  # type: ignore[call-arg]
    "a kind": lambda: RigL(0.9, every="often"),  # type: ignore[arg-type]
    "a word": lambda: RigL(0.9, allocation="even"),  # type: ignore[arg-type]
    "nothing": lambda: RigL(),  # type: ignore[call-arg]
    "no name": lambda: RigL(0.9, True),  # type: ignore[call-arg]
}

#: And what it lets pass.
ALLOWED: tuple[Policy, ...] = (
    RigL(0.9, allocation="erk", every=7, until=None),
    RigL(sparsity=0.9, allocation=Uniform()),
    SwatErk(0, allocation=ErdosRenyiKernel()),
    ByScore(score, 0.9, of=("weight", ("wgrad", "act"))),
    Periodic(SwatU(0.9), 7, 3),
    Transposable(),
)
