"""Records in files. After a resume each file goes on where the checkpoint left it: later lines are cut away."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer


class _FileLogger(Callback):
    """An append-only file whose length is part of the checkpoint."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file: BinaryIO | None = None
        self._offset: int | None = None  # where to go on; None starts the file anew
        self._flushed = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        if self._offset is not None and size < self._offset:
            warnings.warn(f"{self.path} is shorter than when it was checkpointed; it goes on from here", stacklevel=2)
            self._offset = size
        self._file = open(self.path, "wb" if self._offset is None else "r+b")  # noqa: SIM115 - open for the whole run
        if self._offset is None:
            self.begin()
        else:
            self._file.truncate(self._offset)
            self._file.seek(self._offset)

    def begin(self) -> None:
        """Writes what stands at the head of a new file."""

    def append(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        now = time.monotonic()
        if now - self._flushed > 0.2:  # for who watches the file; a checkpoint flushes too
            self._flushed = now
            self._file.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._file is not None:
            self._offset = self._file.tell()
            self._file.close()
            self._file = None

    def state_dict(self) -> dict[str, Any]:
        if self._file is not None:  # what the checkpoint counts on must not be lost with the machine
            self._file.flush()
            os.fsync(self._file.fileno())
            self._offset = self._file.tell()
        return {"offset": self._offset}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._offset = state["offset"]


class CSVLogger(_FileLogger):
    """One row for each step, or each epoch, in a CSV file. The columns are the numbers of the first record.

    Args:
        path: of the file; replaced by a new run, continued by a resumed one.
        on: "step" or "epoch".
    """

    def __init__(self, path: str | os.PathLike[str], *, on: str = "step"):
        if on not in ("step", "epoch"):
            raise ValueError(f'CSVLogger: unknown on={on!r}\nhelp: use "step" or "epoch"')
        super().__init__(path)
        self.on = on
        self._fields: list[str] | None = None

    def begin(self) -> None:
        self._fields = None

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self.on == "step":
            self._row(record)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if self.on == "epoch":
            self._row(record)

    def _row(self, record: Mapping[str, Any]) -> None:
        first = self._fields is None
        if self._fields is None:
            self._fields = list(record)
        if list(record) == self._fields:
            return self._line(record.values(), first)
        missing = [key for key in record if key not in self._fields]
        if missing:
            raise ValueError(
                f"CSVLogger: {', '.join(missing)} is not among the columns {', '.join(self._fields)}\n"
                "help: return the same numbers at each step, or use JSONLogger"
            )
        self._line((record.get(key, "") for key in self._fields), first)

    def _line(self, values: Iterable[Any], first: bool) -> None:
        writer = csv.writer(text := io.StringIO(newline=""), lineterminator="\n")
        if first:
            writer.writerow(self._fields or ())
        writer.writerow(values)
        self.append(text.getvalue().encode())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"fields": self._fields}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._fields = state["fields"]


class JSONLogger(_FileLogger):
    """One JSON object on a line for each step and each epoch; `kind` tells which.

    Args:
        path: of the file; replaced by a new run, continued by a resumed one.
    """

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.append(json.dumps({"kind": "step"} | record).encode() + b"\n")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.append(json.dumps({"kind": "epoch"} | record).encode() + b"\n")


class TensorBoardLogger(_FileLogger):
    """Scalars in an event file that TensorBoard reads (`tensorboard --logdir folder`).

    The events are written here: TensorBoard is needed to look at them, not to write them.

    Args:
        folder: of the event file; replaced by a new run, continued by a resumed one.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        super().__init__(Path(folder) / "events.out.tfevents.0.pullback")

    def begin(self) -> None:
        self.append(_record(_double(1, time.time()) + _bytes(3, b"brain.Event:2")))

    def on_step_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self._event(record, "step/")

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self._event(record, "epoch/")

    def _event(self, record: Mapping[str, Any], prefix: str) -> None:
        values = b"".join(
            _bytes(1, _bytes(1, (prefix + key).encode()) + b"\x15" + struct.pack("<f", value))
            for key, value in record.items()
            if key != "step"
        )
        step = _varint(2 << 3) + _varint(record["step"])
        self.append(_record(_double(1, time.time()) + step + _bytes(5, values)))


# ---- the event file: records of (length, crc, data, crc), where data is a protocol buffer


def _crc_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)  # Castagnoli, reflected
        table.append(n)
    return table


_CRC = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)
