"""CUDA devices: what is there, streams and events, and the figures of device memory.

The kernels lie in a library of their own that is loaded only where a driver is found. Work on a device is asynchronous:
a call returns once its kernels are enqueued on the current stream of the thread, and reading a value waits for them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from .. import _core as C

__all__ = [
    "Event",
    "Stream",
    "device_count",
    "empty_cache",
    "is_available",
    "memory_stats",
    "reset_peak_memory",
    "synchronize",
]


def device_count() -> int:
    """The number of CUDA devices; 0 without a driver, or in a build without the CUDA library.

    Example:
        >>> pb.cuda.device_count() >= 0
        True
    """
    return C._cuda_device_count()


def is_available() -> bool:
    """Whether tensors can be put on a CUDA device.

    Example:
        >>> pb.cuda.is_available() == (pb.cuda.device_count() > 0)
        True
    """
    return device_count() > 0


def index_of(device: str | int) -> int:
    """The number of a device given as a number or by its name, "cuda" or "cuda:1"."""
    if isinstance(device, int):
        return device
    if device == "cuda":
        return 0
    kind, _, number = str(device).partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise C.DeviceError(f"cuda: {device!r} is no CUDA device\nhelp: pass a number, or a name such as cuda:0")
    return int(number)


def synchronize(device: str | int = "cuda") -> None:
    """Waits until all work on a device is done; an error of that work is raised here.

    Raises:
        DeviceError: there is no such device, or work on it failed.
    """
    C._cuda_synchronize(index_of(device))


def memory_stats(device: str | int = "cuda") -> dict[str, int]:
    """The figures of the device's caching allocator, in bytes and counts.

    `current` and `peak` count what tensors asked for, `reserved` what was taken from the device, `largest_free` the
    largest cached block; `retries` tells how often the cache had to be dropped for a call, `device_free` and
    `device_total` what the driver says of the whole device.

    Raises:
        DeviceError: there is no such device.
    """
    return C._cuda_stats(index_of(device))


def reset_peak_memory(device: str | int = "cuda") -> None:
    """Sets the peak of `memory_stats` to what is in use now."""
    C._cuda_reset_peak(index_of(device))


def empty_cache(device: str | int = "cuda") -> None:
    """Gives cached memory without a tensor in it back to the device. Waits for the device."""
    C._cuda_empty_cache(index_of(device))


class Stream:
    """A queue of work on a device. Work of one stream runs in order, that of several at the same time.

    In a `with` block it is the current stream of the thread. A tensor belongs to the stream it was made on: before
    another stream reads it, let that one wait for an event recorded after it was made.

    Args:
        device: its number or name.

    Raises:
        DeviceError: there is no such device.
    """

    def __init__(self, device: str | int = "cuda") -> None:
        self._stream = C._Stream(index_of(device))
        self._before: list[int] = []

    @property
    def device(self) -> str:
        """The name of its device."""
        return f"cuda:{self._stream.index}"

    def synchronize(self) -> None:
        """Waits until its work is done."""
        self._stream.synchronize()

    def query(self) -> bool:
        """Whether its work is done."""
        return self._stream.query()

    def wait(self, event: Event) -> None:
        """Lets work enqueued from now on wait for the event; the caller does not wait."""
        event._event.wait(self._stream)

    def record(self, event: Event | None = None) -> Event:
        """Records an event after the work enqueued so far; returns it."""
        event = event or Event(self.device)
        event._event.record(self._stream)
        return event

    def uses(self, x: C.Tensor) -> None:
        """Keeps the memory of x, when it is freed, until the work enqueued here by then is done."""
        C._used_on(x, self._stream)

    def __enter__(self) -> Stream:
        self._before.append(C._set_stream(self._stream))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        C._restore_stream(self._stream.index, self._before.pop())

    def __repr__(self) -> str:
        return f"Stream({self.device!r})"


class Event:
    """A mark in a stream, to wait for or to take times between.

    Args:
        device: the number or name of its device.
        timing: whether `elapsed` may be asked.
    """

    def __init__(self, device: str | int = "cuda", *, timing: bool = False) -> None:
        self._event = C._Event(index_of(device), timing)

    def record(self, stream: Stream | None = None) -> None:
        """Marks the end of the work enqueued so far on the stream; None: on the current one."""
        self._event.record(stream._stream if stream is not None else None)

    def synchronize(self) -> None:
        """Waits until the marked work is done."""
        self._event.synchronize()

    def query(self) -> bool:
        """Whether the marked work is done."""
        return self._event.query()

    def elapsed(self, later: Event) -> float:
        """Seconds from this event to a later one; both must be done and made with timing=True.

        Raises:
            ValueError: an event was made without timing, or not recorded.
        """
        return self._event.elapsed(later._event)


def to_device(batch: Any, device: str) -> Any:
    """The batch with every tensor of the CPU moved to a device, through page-locked memory and without waiting."""
    if isinstance(batch, C.Tensor):
        if device == "cpu" or batch.device != "cpu":
            return batch.to(device)
        return _copies(index_of(device)).send(batch, device)
    if isinstance(batch, dict):
        return {key: to_device(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(part, device) for part in batch)
    return batch


class _Copies:
    """Page-locked buffers, each in use until the event after its copy."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.free: dict[tuple[Any, ...], list[tuple[C.Tensor, Event]]] = {}

    def send(self, x: C.Tensor, device: str) -> C.Tensor:
        key = (tuple(x.shape), x.dtype.name)
        buffers = self.free.setdefault(key, [])
        if buffers and buffers[0][1].query():
            buffer, event = buffers.pop(0)
            C.optim_copy([buffer], [x.detach()])
        else:
            if len(self.free) > 64:  # shapes that do not come again
                self.free = {key: buffers}
            buffer, event = C._pin(x.detach()), Event(self.device)
        moved = buffer.to(device)
        event.record()
        buffers.append((buffer, event))
        return moved


_senders: dict[int, _Copies] = {}


def _copies(device: int) -> _Copies:
    return _senders.setdefault(device, _Copies(device))
