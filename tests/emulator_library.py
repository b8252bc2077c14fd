"""The emulated CUDA library: its build, device memory, schedules and probes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "emulator"
FOLDER = ROOT / "build" / "emulator"
ASCENDING, DESCENDING, SHUFFLED = range(3)


def build(folder: Path = FOLDER, *options: str) -> Path:
    """Builds `_emulated.so` in `folder`, which is kept: where nothing changed this takes a fraction of a second."""
    import ninja

    ready = os.environ.get("PULLBACK_EMULATED_LIBRARY")
    if ready:
        return Path(ready)
    folder.mkdir(parents=True, exist_ok=True)
    cmake = [sys.executable, "-m", "cmake"]
    program = f"-DCMAKE_MAKE_PROGRAM={ninja.BIN_DIR}/ninja"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists() or options:
            run(*cmake, "-S", str(SOURCES), "-B", str(folder), "-G", "Ninja", program, *options)
        run(*cmake, "--build", str(folder), "-j", "2")
    return folder / "_emulated.so"


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


class CudaError(Exception):
    """A function returned something else than 0; the text is the emulator's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Memory:
    """Device memory with the contents of a NumPy array; `offset` bytes lie before it, so that it may be misaligned."""

    def __init__(self, library: Library, array: np.ndarray, offset: int = 0) -> None:
        self.library, self.shape, self.dtype = library, array.shape, array.dtype
        self.nbytes, self.offset = array.nbytes, offset
        raw = np.concatenate([np.full(offset, 255, np.uint8), np.ascontiguousarray(array).reshape(-1).view(np.uint8)])
        base = library.c.emulator_new(max(1, raw.size))
        assert base, "out of memory"
        self.address = base + offset
        library.check(library.c.emulator_put(base, raw.ctypes.data, raw.size))

    def numpy(self) -> np.ndarray:
        out = np.empty(self.nbytes, np.uint8)
        self.library.check(self.library.c.emulator_get(out.ctypes.data, self.address, self.nbytes))
        return out.view(self.dtype).reshape(self.shape)


class Library:
    """The functions of tests/emulator/shim.cpp."""

    def __init__(self, path: Path) -> None:
        self.path = path
        c = self.c = ctypes.CDLL(str(path))
        address = ctypes.c_void_p
        c.emulator_new.restype = address
        c.emulator_new.argtypes = [ctypes.c_size_t]
        c.emulator_put.argtypes = c.emulator_get.argtypes = [address, address, ctypes.c_size_t]
        c.emulator_error.restype = ctypes.c_char_p
        c.emulator_begin.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int]
        c.emulator_begin.restype = None
        c.emulator_fail_at.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        c.emulator_fail_at.restype = None
        c.emulator_launches.restype = ctypes.c_long
        c.emulator_probe.argtypes = [ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, address, ctypes.c_int64]

    def begin(self, order: int = ASCENDING, seed: int = 1, lazy: bool = False) -> None:
        """Frees all device memory, forgets errors, sets the schedule."""
        self.c.emulator_begin(order, seed, lazy)

    def check(self, code: int) -> None:
        if code:
            raise CudaError(code, self.c.emulator_error(code).decode())

    def put(self, array: np.ndarray, offset: int = 0) -> Memory:
        return Memory(self, array, offset)

    def probe(self, name: str, blocks: int = 1, threads: int = 64, n: int = 4096) -> np.ndarray:
        out = self.put(np.zeros(n, np.float32))
        self.check(self.c.emulator_probe(name.encode(), blocks, threads, out.address, n))
        return out.numpy()
