"""Give a trace of format 1 its digests: what it says from then on is what it says now.

    python traces/add_digests.py TRACE

Every mask is read first, and a trace that is not whole is left as it is. Masks, notes and the
trace's id stay; the manifest says when the digests were added, for they can't tell what happened to
the trace before.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save

import swatsim
from swatsim.files import publish_all
from swatsim.tracefile import Manifest, Step, Trace, open_trace
from swatsim.tracefile.format_1 import layers_digest
from swatsim.tracefile.schema import MANIFEST, dump_manifest


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trace", type=Path)
    add_digests(open_trace(parser.parse_args().trace))


def add_digests(trace: Trace) -> None:
    """Write manifest and steps anew, with digests; all that have them already are left alone."""
    steps = [trace.step(number) for number in trace.steps]
    for step in steps:
        list(step.check())
    is_old = trace.manifest.schema_version == 1
    bare = [step for step in steps if is_old and step.layers_digest is None]
    if trace.manifest.digest and not bare:
        print(f"{trace.path} has its digests already")
        return
    before = trace.id
    contents = {step.path: with_digest(step) for step in bare}
    contents[trace.path / MANIFEST] = dump_manifest(dated(trace.manifest))
    publish_all(contents)
    assert open_trace(trace.path).id == before
    print(f"{trace.path}: digests added to {MANIFEST} and {len(bare)} steps; its id stays {before}")


def dated(manifest: Manifest) -> Manifest:
    """Say in a manifest when its digests were added."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    added = f"{now} by swatsim {swatsim.__version__}"
    fields = {
        name: getattr(manifest, name) for name in ("layers", "policy", "batch_size", "samples")
    }
    provenance = {**manifest.provenance, "digests_added": added}
    return Manifest(schema_version=1, **fields, provenance=provenance)


def with_digest(step: Step) -> bytes:
    """Make a step's file again, with its digest."""
    with safe_open(step.path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    found = layers_digest({record.layer for record in step.records}, step.manifest)
    return save(tensors, metadata={**metadata, "layers_digest": found})


if __name__ == "__main__":
    main()
