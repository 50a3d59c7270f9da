"""Writing one step as it comes: its masks into a spool, then header and spool under its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

from swatsim.errors import TraceError, WorkloadError
from swatsim.files import publish_chunks, temporary, write_all
from swatsim.tracefile import codec
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.header import StepHeader, dump_header
from swatsim.tracefile.others import OtherWork
from swatsim.tracefile.plain import plain
from swatsim.tracefile.schema import SUFFIX, Manifest, MaskRecord, StepLayer, check_number
from swatsim.workload.layer import Operand, OpName

log = logging.getLogger(__name__)

Key = tuple[str, OpName, Operand]

#: safetensors reads no longer header.
MAX_HEADER_BYTES = 100_000_000
CHUNK_BYTES = 2**20


class StepWriter:
    """Writes one step; in memory are never more than one mask and what is recorded of the others.

    A safetensors file begins with a header that says where each tensor lies, so the tensors wait
    in a file of their own until all are there. `TraceWriter.step` makes one; one thread uses it.

    Parameters
    ----------
    folder : pathlib.Path
        The trace's directory of steps; made with the first mask.
    number : int
        The step's.
    manifest : callable
        Gives the trace's, as it is when the step is published.
    spool : pathlib.Path
        Folder in which the tensors wait.
    published : callable
        Called once the step's file is there.

    Raises
    ------
    TraceError
        If the number is none.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        manifest: Callable[[], Manifest | None],
        *,
        spool: Path,
        published: Callable[[], None],
    ) -> None:
        check_number(number)
        self._published = published
        self.number = number
        self._manifest = manifest
        self.path = folder / f"{number}{SUFFIX}"
        self._spool_path = temporary(spool / f"{number}.spool")
        self._spool: FileIO | None = None
        self._size = 0
        self._records: list[MaskRecord] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._stored: dict[str, str] = {}

    def add(
        self,
        keys: Sequence[Key],
        shape: tuple[int, ...],
        packed: codec.Bytes,
        dtype: str | None = None,
    ) -> None:
        """Write one mask; of equal masks only the first is stored, masks of ones not at all.

        Parameters
        ----------
        keys : sequence of (layer, op, operand)
            All whose mask it is.
        shape : tuple of int
            The mask's; `Recorder` has checked it.
        packed : numpy.ndarray of uint8
            Its bits, as `codec.pack` makes them.
        dtype : str, optional
            What the operand's values are stored as, one of `schema.VALUE_TYPES`.

        Raises
        ------
        TraceError
            If it can't be written.
        """
        first = self._record(keys[0], shape, packed, dtype)
        others = ({"layer": layer, "op": op, "operand": operand} for layer, op, operand in keys[1:])
        self._records += [first, *(first.model_copy(update=key) for key in others)]

    def publish(
        self,
        batch_size: int,
        layers: Sequence[StepLayer],
        notes: Mapping[str, Any] | None = None,
        coverage: Coverage | None = None,
        others: tuple[OtherWork, ...] | None = None,
    ) -> Path:
        """Write the step's file of all masks so far; it is whole, or absent.

        Parameters
        ----------
        batch_size : int
            Of this step; the last one of an epoch may be smaller.
        layers : sequence of StepLayer
            Those of the masks, in the order in which they ran.
        notes : mapping, optional
            What else is known of the step, as JSON.
        coverage : Coverage, optional
            How much of the step's multiplications the masks are of.
        others : tuple of OtherWork, optional
            What else the step did.

        Raises
        ------
        TraceError
            If it can't be written, or could not be read again.
        """
        header = self._header(self._metadata(batch_size, layers, notes or {}, coverage, others))
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            publish_chunks(self.path, self._content(header))
        self.discard()
        self._published()
        log.info("step %d recorded: %d masks in %s", self.number, len(self._records), self.path)
        return self.path

    def discard(self) -> None:
        """Remove what is on disk of a step that is not published."""
        self.forget()
        with suppress(OSError):
            self._spool_path.unlink()

    def forget(self) -> None:
        """Close the spool, and leave it: in a forked child it is the parent's."""
        if self._spool is not None:
            with suppress(OSError):
                self._spool.close()

    def _record(
        self, key: Key, shape: tuple[int, ...], packed: codec.Bytes, dtype: str | None
    ) -> MaskRecord:
        layer, op, operand = key
        what: dict[str, Any] = {"layer": layer, "op": op, "operand": operand, "shape": shape}
        what["dtype"] = dtype
        if (ones := codec.popcount(packed)) == prod(shape):
            return MaskRecord(**what, ones=ones, codec="ones")
        digest = codec.digest(packed)
        tensor = self._stored.setdefault(digest, "/".join(key))
        if tensor not in self._places:
            self._store(tensor, codec.compress(packed))
        return MaskRecord(**what, ones=ones, codec="zstd", tensor=tensor, digest=digest)

    def _store(self, tensor: str, frame: codec.Bytes) -> None:
        with writing(self.path):
            if self._spool is None:
                self._spool_path.parent.mkdir(parents=True, exist_ok=True)
                self._spool = FileIO(self._spool_path, "w+")
            write_all(self._spool, frame.data)
        self._places[tensor] = self._size, self._size + frame.size
        self._size += frame.size

    def _metadata(
        self,
        batch_size: int,
        layers: Sequence[StepLayer],
        notes: Mapping[str, Any],
        coverage: Coverage | None,
        others: tuple[OtherWork, ...] | None,
    ) -> dict[str, str]:
        """Return the header's metadata, once the step is what a reader accepts."""
        manifest = self._manifest()
        try:
            if manifest is None:
                raise TraceError("its trace has no manifest yet: write that first")
            header = StepHeader(batch_size, layers, self._records, coverage, others, plain(notes))
            header.check(manifest)
            return dump_header(header)
        except (TraceError, WorkloadError, ValueError) as error:
            raise TraceError(f"can't write {self.path}: {error}") from None

    def _header(self, metadata: Mapping[str, str]) -> bytes:
        """Return what stands before the tensors: its length, and JSON, padded to eight bytes."""
        index: dict[str, Any] = {"__metadata__": metadata}
        for name, (begin, end) in self._places.items():
            index[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > MAX_HEADER_BYTES:
            raise TraceError(
                f"can't write {self.path}: its header would have {len(text)} bytes, at most "
                f"{MAX_HEADER_BYTES} can be read; note less, or record fewer layers"
            )
        return len(text).to_bytes(8, "little") + text

    def _content(self, header: bytes) -> Iterator[bytes]:
        yield header
        if self._spool is not None:
            self._spool.seek(0)
            while chunk := self._spool.read(CHUNK_BYTES):
                yield chunk


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what a disk refuses in the block as an error of the trace."""
    try:
        yield
    except OSError as error:
        raise TraceError(
            f"can't write {path}: {error.strerror or error}; what was written before is whole. "
            "Make room, or choose another place"
        ) from None
