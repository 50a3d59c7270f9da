"""The networks whose layer tables ship: parameters and MACs, counted from the tables."""

from __future__ import annotations

from from_code.markdown import code, table, words
from swatsim.workload.networks import NETWORKS


def pages() -> dict[str, str]:
    """Return the table of networks."""
    rows = []
    for name, blueprint in NETWORKS.items():
        built = blueprint()
        million, billion = f"{built.parameters / 1e6:.2f}", f"{built.macs / 1e9:.3f}"
        optimizer = blueprint.optimizer.upper() if blueprint.optimizer == "sgd" else "AdamW"
        source = words(blueprint.citation)
        rows.append((code(name), len(built.layers), million, billion, optimizer, source))
    head = ("network", "layers", "parameters, 10^6", "MACs forward, 10^9", "trained by", "source")
    return {
        "reference/networks.md": "\n".join(
            [
                "# Networks\n",
                "What `swatsim synth`, `swatsim footprint` and `swatsim.workload.networks.network` "
                "know. MACs are dense, of the forward pass of one image or sequence; products of "
                "two activations (attention) are layers too.\n",
                table(head, rows, numbers=(1, 2, 3)),
            ]
        )
    }
