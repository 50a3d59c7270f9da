"""Time a whole training step of GPT-2 small, exact, from a trace on disk. Prints one line.

    python benchmarks/speed/gpt2_step.py --machine tensordash [--tokens 1024] [--blocks 12]

One sequence, 12 blocks, attention's products and the head, SWAT-U; the machine and its dense
baselines, and all that the step does beside multiplying. In a fresh process, whose peak is shown;
kernels are compiled before the clock starts. On 2 cores within 4 GiB it is to take at most 60 s on
`tensordash` and 180 s on `swat`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from resnet50_step import measure

from swatsim.policies import SwatU
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.networks import NETWORKS
from swatsim.workload.transformers import GPT2_SMALL, Sizes

#: Runs each kernel once, and takes no time.
TINY = Sizes(1, 64, 2, 128, 16, 100)


def record(path: Path, sizes: Sizes, sparsity: float) -> Path:
    table = replace(NETWORKS["gpt2-small"], sizes=sizes)()
    synthesize(table, path, policy=SwatU(sparsity), batch=1, seed=1)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default="tensordash")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--tokens", type=int, default=GPT2_SMALL.tokens)
    parser.add_argument("--blocks", type=int, default=GPT2_SMALL.blocks)
    chosen = parser.parse_args()
    sizes = replace(GPT2_SMALL, tokens=chosen.tokens, blocks=chosen.blocks)
    with tempfile.TemporaryDirectory() as temporary:
        warm = record(Path(temporary) / "warm", TINY, chosen.sparsity)
        trace = record(Path(temporary) / "trace", sizes, chosen.sparsity)
        found = measure(trace, chosen.machine, warm)
    what = f"{chosen.blocks} blocks, {chosen.tokens} tokens, SWAT-U {chosen.sparsity:.0%}"
    print(
        f"GPT-2 small, {what}, {chosen.machine}: CPU {found['cpu']:.1f} s, "
        f"wall {found['wall']:.1f} s, peak {found['peak']:.0f} MiB, "
        f"{found['cycles']:,.0f} cycles, "
        f"{found['macs'] / found['wall'] / 1e9:.0f} G simulated MAC/s"
    )


if __name__ == "__main__":
    main()
