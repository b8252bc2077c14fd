"""Tensors in files: the safetensors format, written whole or not at all.

A file is a length (8 bytes, little endian), a JSON header that names dtype, shape and byte range of every tensor, and
the bytes themselves. Nothing in it can run code. `save` writes to a temporary file beside the target, syncs it,
renames it over the target and syncs the folder, so that a crash or a full disk leaves the old file as it was.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import pullback as pb

__all__ = ["load", "metadata", "read", "save"]

# Name in the file -> name of the dtype.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_NAMES = {name: code for code, name in _DTYPES.items()}
_MAX_HEADER = 100_000_000  # bytes; the limit of the format's other readers
_MAX_DIMS = 32
_CRC = "pullback.crc32"  # of the data, eight hexadecimal digits
_SHARED = "pullback.shared"  # JSON {name: name of the tensor that holds its bytes}


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors, and optional text metadata, in the safetensors format.

    The file appears whole or not at all: on any error an older file of this name stays as it was and the temporary
    one is removed. A tensor that stands under several names (tied weights) is written once.

    Args:
        path: the file to write; an existing one is replaced.
        tensors: {name: tensor} of any shapes and dtypes; strided views are written as their elements.
        metadata: {name: text}, kept in the header.

    Raises:
        TypeError: a name or a metadata value is not text, or a value is not a tensor.
        OSError: the file cannot be written, for instance because the disk is full.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
        >>> pb.save(path, {"w": pb.tensor([1.0, 2.0])}, metadata={"note": "two"})
        >>> pb.load(path)["w"].tolist(), pb.io.metadata(path)
        ([1.0, 2.0], {'note': 'two'})
    """
    path = os.path.realpath(os.fspath(path))
    owned, shared = _check_tensors(tensors)
    notes = _check_metadata(metadata)
    if shared:
        notes[_SHARED] = json.dumps(shared, ensure_ascii=False)
    entries: dict[str, Any] = {
        name: {"dtype": _NAMES[t.dtype.name], "shape": list(t.shape)} for name, t in owned.items()
    }
    # Widest elements first: with the header padded to 8 bytes every tensor is aligned. The sort is stable.
    order = sorted(owned, key=lambda name: -owned[name].dtype.itemsize)
    end = 0
    for name in order:
        begin, end = end, end + owned[name].nbytes
        entries[name]["data_offsets"] = [begin, end]

    def header(crc: int) -> bytes:
        text = json.dumps(
            {"__metadata__": notes | {_CRC: f"{crc:08x}"}} | entries, separators=(",", ":"), ensure_ascii=False
        )
        raw = text.encode("utf-8")
        raw += b" " * (-len(raw) % 8)
        return len(raw).to_bytes(8, "little") + raw

    folder, base = os.path.split(path)
    temporary = os.path.join(folder, f".{base}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(header(0))
            crc = 0
            for name in order:  # one tensor's bytes in memory at a time
                data = owned[name].tobytes()
                crc = zlib.crc32(data, crc)
                file.write(data)
            file.seek(0)
            file.write(header(crc))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sweep(folder, base)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            text = f"save: {error.strerror or error}; {base} was not written and an older one is as it was"
            raise OSError(error.errno, f"{text}\nhelp: free space or choose another folder than {folder!r}") from error
        raise
    _sync_folder(folder)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the tensors of a safetensors file, as {name: tensor} in the file's order.

    The file is mapped and each tensor copied once. The header is checked in full before any tensor is made, and the
    checksum too where the file has one.

    Raises:
        CheckpointError: the file is no safetensors file, or is cut short or damaged.
        OSError: the file cannot be opened.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
        >>> pb.save(path, {"w": pb.tensor([1, 2])})
        >>> pb.load(path)["w"].tolist()
        [1, 2]
    """
    return read(path)[0]


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text metadata of a safetensors file. Reads the header only.

    Raises:
        CheckpointError: the header is damaged.
        OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _, notes = _parse(path, *_header(path, file.read(8), size, file.read))
    return _user_notes(notes)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the metadata of one file: (`load`, `metadata`) of the same bytes."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        raw, data_bytes = _header(path, file.read(8), size, file.read)
        entries, notes = _parse(path, raw, data_bytes)
        start = size - data_bytes
        with contextlib.ExitStack() as stack:
            if data_bytes == 0:
                data = memoryview(b"")
            else:
                mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                data = stack.enter_context(memoryview(mapped))[start:]
            stack.enter_context(data)
            _check_crc(path, data, notes)
            tensors = {}
            for name, (dtype, shape, begin, end) in entries.items():
                with data[begin:end] as part:
                    if dtype == "bool" and bytes(part).strip(b"\0\1"):
                        _bad(path, f"tensor {name!r} has bytes that are no bools")
                    tensors[name] = pb._core.frombuffer(part, getattr(pb, dtype), shape)
    for name, holder in _shared_names(path, notes, tensors).items():
        tensors[name] = tensors[holder]
    return tensors, _user_notes(notes)


# ---- writing


def _check_tensors(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits the names into {name: tensor to write} and {name: name of the same tensor}."""
    owned: dict[str, Any] = {}
    shared: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"save: names must be text, got {name!r}\nhelp: pass a flat dict {{name: tensor}}")
        if name == "__metadata__":
            raise ValueError("save: the name '__metadata__' belongs to the format\nhelp: rename the tensor")
        if not isinstance(tensor, pb.Tensor):
            raise TypeError(
                f"save: the value under {name!r} is a {type(tensor).__name__}, not a tensor\n"
                "help: make it one with pb.asarray, or put text into metadata="
            )
        key = (tensor._address, tensor.dtype.name, tensor.shape, tensor.strides) if tensor.size else id(tensor)
        if key in seen:
            shared[name] = seen[key]
        else:
            owned[name] = tensor
            seen[key] = name
    return owned, shared


def _check_metadata(notes: Mapping[str, str] | None) -> dict[str, str]:
    for key, value in (notes or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save: metadata must be text, got {key!r}: {value!r}\nhelp: use str() or json.dumps()")
        if key in (_CRC, _SHARED):
            raise ValueError(f"save: the metadata name {key!r} is reserved\nhelp: choose another name")
    return dict(notes or {})


def _sweep(folder: str, base: str) -> None:
    """Removes what saves of this file left behind when their processes were killed."""
    for name in os.listdir(folder):
        pid = name.removeprefix(f".{base}.").removesuffix(".tmp")
        if name != f".{base}.{pid}.tmp" or not pid.isdigit():
            continue
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
        except OSError:
            pass  # a process of another user: it may still write


def _sync_folder(folder: str) -> None:
    # The rename itself lies in the folder; where a file system cannot sync one, the rename is still atomic.
    with contextlib.suppress(OSError):
        fd = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# ---- reading


def _bad(path: Any, what: str) -> NoReturn:
    raise pb.CheckpointError(
        f"load: {os.fspath(path)}: {what}\nhelp: the file is damaged or no safetensors file; use an older copy"
    )


def _header(path: Any, first: bytes, size: int, read_bytes: Any) -> tuple[bytes, int]:
    """The header's bytes and the number of data bytes after it."""
    if len(first) < 8:
        _bad(path, f"cut short: {size} bytes cannot hold the header's length")
    length = int.from_bytes(first, "little")
    if length > _MAX_HEADER:
        _bad(path, f"oversized header: {length} bytes, at most {_MAX_HEADER} are allowed")
    if length > size - 8:
        _bad(path, f"cut short: the header has {length} bytes but only {size - 8} follow")
    return read_bytes(length), size - 8 - length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"duplicate name {key!r}")
        table[key] = value
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse(
    path: Any, raw: bytes, data_bytes: int
) -> tuple[dict[str, tuple[str, tuple[int, ...], int, int]], dict[str, str]]:
    """{name: (dtype, shape, begin, end)} and the metadata, after every check that needs no data."""
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _bad(path, f"the header cannot be read: {error}")
    if not isinstance(table, dict):
        _bad(path, "the header is no JSON object")
    notes = table.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        _bad(path, "__metadata__ must map text to text")
    entries = {name: _entry(path, name, value) for name, value in table.items()}
    at = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if end > data_bytes:
            _bad(path, f"cut short: tensor {name!r} ends at byte {end} of {data_bytes}")
        if begin < at:
            _bad(path, f"tensor {name!r} overlaps another one")
        if begin > at:
            _bad(path, f"{begin - at} bytes before tensor {name!r} belong to no tensor")
        at = end
    if at != data_bytes:
        _bad(path, f"{data_bytes - at} bytes at the end belong to no tensor")
    return entries, notes


def _entry(path: Any, name: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:
    def natural(n: Any) -> bool:
        return type(n) is int and 0 <= n < 2**63

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _bad(path, f"the entry of tensor {name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        _bad(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(map(natural, shape)) or len(shape) > _MAX_DIMS:
        _bad(path, f"tensor {name!r} has a bad shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(natural, offsets)):
        _bad(path, f"tensor {name!r} has bad data_offsets")
    size = getattr(pb, _DTYPES[dtype]).itemsize
    for n in shape:
        size *= n
    begin, end = offsets
    if end - begin != size:
        _bad(path, f"tensor {name!r} needs {size} bytes but has {end - begin}")
    return _DTYPES[dtype], tuple(shape), begin, end


def _check_crc(path: Any, data: memoryview, notes: dict[str, str]) -> None:
    if _CRC in notes and notes[_CRC] != f"{zlib.crc32(data):08x}":
        _bad(path, "the checksum of the data differs")


def _shared_names(path: Any, notes: dict[str, str], tensors: dict[str, Any]) -> dict[str, str]:
    try:
        shared = json.loads(notes.get(_SHARED, "{}"))
        good = all(isinstance(b, str) and b in tensors and a not in tensors for a, b in shared.items())
    except (ValueError, AttributeError, RecursionError):
        good = False
    if not good:
        _bad(path, "the table of shared tensors is damaged")
    return shared


def _user_notes(notes: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in notes.items() if key not in (_CRC, _SHARED)}
