"""A mask as bytes: bits packed little end first, zstd level 1 with a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import zstandard

from swatsim.errors import TraceError
from swatsim.tracefile.schema import MaskRecord
from swatsim.workload.windows import Mask

Bytes = npt.NDArray[np.uint8]

#: Packed bits that are held at a time while a mask is unpacked.
MOST_PACKED = 2**20
NOTHING = np.zeros(0, np.uint8)


def pack(mask: Mask) -> Bytes:
    """Return a packed mask: of any shape, C order, element i in bit i % 8 of byte i // 8."""
    return np.packbits(mask.reshape(-1), bitorder="little")


def compress(packed: Bytes) -> Bytes:
    """Return compressed bits; the frame carries its size and a checksum of its content."""
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True)
    return np.frombuffer(compressor.compress(packed.data), np.uint8)


def digest(packed: Bytes) -> str:
    """Return the digest of packed bits (16 hex digits): equal ones are stored once."""
    return _new_digest(packed).hexdigest()


def _new_digest(packed: Bytes = NOTHING) -> hashlib.blake2b:
    return hashlib.blake2b(packed.data, digest_size=8)


def popcount(packed: Bytes) -> int:
    """Return the number of ones in packed bits."""
    return int(np.bitwise_count(packed).sum(dtype=np.int64))


def unpack(frame: Bytes, record: MaskRecord) -> Mask:
    """Return the read-only mask of a tensor's bytes.

    No size is believed before it is checked: the frame must promise exactly the bytes that the
    (already checked) shape needs, and no more than that is ever allocated.

    Raises
    ------
    TraceError
        If the bytes are damaged, or hold other elements than recorded.
    """
    size = (record.elements + 7) // 8
    _check_promise(frame, size)
    bits, seen, ones, at = np.empty(record.elements, np.uint8), _new_digest(), 0, 0
    for packed in _decompress(frame, size):
        seen.update(packed.data)
        ones += popcount(packed)
        some = bits[at : at + 8 * packed.size]
        some[:] = np.unpackbits(packed, count=some.size, bitorder="little")
        at += 8 * packed.size
    if ones != record.ones:
        raise TraceError(f"it holds {ones} ones, its header says {record.ones}")
    if (own_digest := seen.hexdigest()) != record.digest:
        raise TraceError(f"its digest is {own_digest}, its header says {record.digest}")
    mask = bits.view(np.bool_).reshape(record.shape)
    mask.flags.writeable = False
    return mask


def all_ones(shape: tuple[int, ...]) -> Mask:
    """Return a read-only mask of ones that takes one byte of memory whatever its shape."""
    return np.broadcast_to(np.True_, shape)


def _check_promise(frame: Bytes, size: int) -> None:
    try:
        promised = zstandard.frame_content_size(frame.data)
    except zstandard.ZstdError as error:
        raise _damaged(error) from None
    if promised != size:
        raise TraceError(f"its frame promises {promised} bytes, its shape needs {size}")


def _decompress(frame: Bytes, size: int) -> Iterator[Bytes]:
    """Yield the bytes of a frame, some at a time; then its checksum is verified."""
    found = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(frame.data) as reader:
            while some := reader.read(max(1, min(MOST_PACKED, size - found))):
                if (found := found + len(some)) > size:
                    break
                yield np.frombuffer(some, np.uint8)
    except zstandard.ZstdError as error:
        raise _damaged(error) from None
    if found != size:
        raise TraceError(f"its frame holds {found} bytes, its shape needs {size}")


def _damaged(error: zstandard.ZstdError) -> TraceError:
    return TraceError(f"its bytes are damaged ({error})")
