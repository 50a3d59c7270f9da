"""Masks in files that somebody else wrote: NumPy's, safetensors, a PyTorch checkpoint.

Nothing in them is executed, and no size is believed: of a tensor a file first gives its shape, and
its values are read once somebody knows that shape for right. What is not zero is kept.

Sources: NumPy's NEP 1 (.npy), the format of safetensors in its README, ``torch.nn.utils.prune``
(``weight_orig`` and ``weight_mask``), torchao's and torch.ao's sparsifiers
(``parametrizations.weight.original`` and ``.0.mask``).
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from swatsim.errors import RecordingError, SwatsimError, listed
from swatsim.tracefile.step import MAX_HEADER_BYTES
from swatsim.tracer.stored import Given, Stored
from swatsim.tracer.timeloop import of_problem
from swatsim.workload.windows import Mask

#: NumPy writes a hundred bytes or so.
MAX_NPY_HEADER = 10_000
#: Kinds of NumPy's types of numbers, bool among them.
NUMBERS = "biufc"
#: What reading malformed files raises.
MALFORMED = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError),
    *(RecursionError, MemoryError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
_VERSIONS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
#: Type in safetensors -> unsigned integers of its size, and which of their bits make it no zero:
#: of a float all but the sign's.
_BITS: Mapping[str, tuple[str, int]] = {
    **{"BOOL": ("u1", 0xFF), "U8": ("u1", 0xFF), "I8": ("u1", 0xFF)},
    **{f"{kind}{bits}": (f"<u{bits // 8}", 2**bits - 1) for kind in "UI" for bits in (16, 32, 64)},
    **{f"F{bits}": (f"<u{bits // 8}", 2 ** (bits - 1) - 1) for bits in (16, 32, 64)},
    "BF16": ("<u2", 0x7FFF),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2"), ("u1", 0x7F)),
}
#: Ends of names that are two tensors of one pruned weight: its values, and what is left of them.
_PRUNED = (
    ("weight_orig", "weight_mask"),
    ("parametrizations.weight.original", "parametrizations.weight.0.mask"),
)


def stored_in(path: Path) -> dict[str, Given]:
    """Return the tensors in a file, or in all files of a folder that can have some, by name.

    Raises
    ------
    RecordingError
        If it can't be read, is of another kind, or two files have a tensor of the same name.
    """
    files = _in_folder(path) if path.is_dir() else [path]
    found: dict[str, Given] = {}
    for file in files:
        for name, tensor in _of_file(file).items():
            if name in found:
                raise RecordingError(
                    f"{tensor.where}: {found[name].where} has a tensor of that name too; give one"
                )
            found[name] = tensor
    return found


def _in_folder(path: Path) -> list[Path]:
    files = sorted(file for file in path.iterdir() if file.suffix in READERS)
    if not files:
        raise RecordingError(f"the folder {path} has no masks: no file of {listed(READERS)} in it")
    return files


def _of_file(path: Path) -> Mapping[str, Given]:
    if path.suffix not in READERS:
        raise RecordingError(
            f"{path} is not allowed: masks are files of {listed(READERS)}, or a folder of them"
        )
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise unreadable(path, "it is no file, but a device or a pipe")
        return READERS[path.suffix](path)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except SwatsimError:
        raise
    except MALFORMED as error:
        raise damaged(str(path), error) from None


def unreadable(where: str | Path, why: str) -> RecordingError:
    """Return the refusal of a file, or of what is in it."""
    return RecordingError(f"{where} can't be read: {why}", of_argument=False)


def damaged(where: str, error: BaseException) -> RecordingError:
    """Return the refusal of what can't be read: one line, whatever a library says of it."""
    said = " ".join(str(error).split()) or type(error).__name__
    short = said if len(said) <= 200 else f"{said[:197]}..."
    return unreadable(where, f"it is damaged or no such file: {short}")


# ---- NumPy ---------------------------------------------------------------------------------------


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], str]:
    """Return shape and type of an array, and why it can't be read: what follows is not touched."""
    read = _VERSIONS.get(npy.read_magic(file))
    if read is None:
        raise ValueError("its version is none that arrays of numbers have")
    shape, _, dtype = read(file, max_header_size=MAX_NPY_HEADER)
    return tuple(shape), dtype, "" if dtype.kind in NUMBERS else f"it holds {dtype}, not numbers"


def _of_npy(path: Path) -> dict[str, Stored]:
    with path.open("rb") as file:
        shape, dtype, wrong = _header(file)
        needed = file.tell() + prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if not wrong and size < needed:
        wrong = f"it is cut off: {shape} of {dtype} are {needed} bytes, it has {size}"
    return {
        path.name.removesuffix(".npy"): Stored(str(path), shape, partial(_load, path), wrong, True)
    }


def _load(path: Path) -> Mask:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False) != 0)


def _of_npz(path: Path) -> dict[str, Stored]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                raise ValueError(f"{member!r} in it is no array")
            with archive.open(member) as file:
                shape, _, wrong = _header(file)
            name, where = member.removesuffix(".npy"), f"{path} ({member})"
            kept = partial(_load_member, path, member)
            found[name] = Stored(where, shape, kept, wrong, is_mask=True)
    return found


def _load_member(path: Path, member: str) -> Mask:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        array = npy.read_array(file, allow_pickle=False, max_header_size=MAX_NPY_HEADER)
    return np.asarray(array != 0)


# ---- checkpoints ---------------------------------------------------------------------------------


def _of_safetensors(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header would have {length} bytes, the file has {size}")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    begin = 8 + length
    tensors = {name: _in_safetensors(path, name, begin, said) for name, said in header.items()}
    return pruned(tensors)


def _in_safetensors(path: Path, name: str, begin: int, said: Mapping[str, Any]) -> Stored:
    shape = tuple(said["shape"])
    first, last = said["data_offsets"]
    where = f"{path} ({name})"
    if said["dtype"] not in _BITS:
        return Stored(where, shape, _nothing, f"it holds {said['dtype']}; read are {listed(_BITS)}")
    kind, bits = _BITS[said["dtype"]]
    if any(type(one) is not int or one < 0 for one in (*shape, first, last)):
        raise ValueError(f"the place of tensor {name!r} is none")
    if last - first != prod(shape) * np.dtype(kind).itemsize or begin + last > path.stat().st_size:
        raise ValueError(
            f"tensor {name!r} is {said['dtype']} {shape}, its bytes are {first} to {last}"
        )
    return Stored(where, shape, partial(_read_bits, path, begin + first, shape, kind, bits))


def _read_bits(path: Path, offset: int, shape: tuple[int, ...], kind: str, bits: int) -> Mask:
    if not prod(shape):
        return np.zeros(shape, np.bool_)
    values = np.memmap(path, kind, "r", offset, shape)
    return np.asarray((values & values.dtype.type(bits)) != 0)


def _nothing() -> Mask:
    raise AssertionError("what is wrong is said before anything is read")


def _of_checkpoint(path: Path) -> dict[str, Stored]:
    from swatsim.tracer.pytorch.checkpoint import tensors_of  # torch, which nothing else here needs

    return pruned(tensors_of(path))


def pruned(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the same with a weight for each that lies in two: its values and a mask.

    A weight that is computed from its values by something else can't be read.
    """
    found = dict(tensors)
    for name in tensors:
        for values, mask in _PRUNED:
            layer = name.removesuffix(values)
            if name.endswith(values):
                other = found.pop(layer + mask, None)
                found[f"{layer}weight"] = _masked(found.pop(name), other)
    return found


def _masked(values: Stored, mask: Stored | None) -> Stored:
    if mask is None:
        wrong = (
            "it is computed from these values, and no mask lies beside them; save the weight "
            "itself: after squash_mask(), prune.remove() or remove_parametrizations()"
        )
        return values._replace(wrong=wrong)
    wrong = values.wrong or mask.wrong
    if values.shape != mask.shape:
        wrong = f"it is {values.shape}, its mask is {mask.shape}"
    return values._replace(kept=partial(_both, values, mask), wrong=wrong)


def _both(one: Stored, other: Stored) -> Mask:
    return one.kept() & other.kept()


#: End of a file's name -> what reads it.
READERS: Mapping[str, Callable[[Path], Mapping[str, Given]]] = {
    ".npy": _of_npy,
    ".npz": _of_npz,
    ".safetensors": _of_safetensors,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _of_checkpoint),
    **dict.fromkeys((".yaml", ".yml"), of_problem),
}
