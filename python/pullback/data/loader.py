"""Batches of a dataset: seeded shuffling, workers, and a position that can be saved and restored."""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pullback as pb

_rng: contextvars.ContextVar[Any] = contextvars.ContextVar("pullback_batch_rng")


class TensorDataset:
    """Rows of tensors of equal length: item i is the tuple of the i-th rows.

    Args:
        tensors: one or more tensors (or arrays) with the same first axis.

    Raises:
        ShapeError: the lengths differ or a tensor has no axis.

    Example:
        >>> data = pb.data.TensorDataset(pb.zeros((3, 2)), pb.arange(3))
        >>> len(data), data[1][0].shape
        (3, (2,))
    """

    def __init__(self, *tensors: Any):
        self.tensors = tuple(pb.asarray(t) for t in tensors)
        lengths = [t.shape[0] if t.ndim else None for t in self.tensors]
        if not lengths or None in lengths or len(set(lengths)) > 1:
            raise pb.ShapeError(
                f"TensorDataset: the tensors need one common first axis, got lengths {lengths}\n"
                "help: pass tensors with a row for each item"
            )

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(t[index] for t in self.tensors)

    def batch(self, indices: Any) -> tuple[Any, ...]:
        """The rows at `indices` (an integer tensor), gathered in one step for each tensor."""
        return tuple(pb.take(t, indices, axis=0) for t in self.tensors)


def collate(items: Sequence[Any]) -> Any:
    """Makes one batch of a list of items.

    Tensors and arrays are stacked, numbers become a tensor, tuples, lists and dicts are collated by their parts, and
    anything else stays a list.

    Example:
        >>> pb.data.collate([{"x": pb.ones(2), "y": 1}, {"x": pb.ones(2), "y": 0}])["y"].tolist()
        [1, 0]
    """
    first = items[0]
    if isinstance(first, pb.Tensor):
        return pb.stack(list(items))
    if isinstance(first, (bool, int, float)):
        return pb.tensor(list(items))
    if isinstance(first, Mapping):
        return {key: collate([item[key] for item in items]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(collate(part) for part in zip(*items, strict=True)))
    if isinstance(first, (tuple, list)):
        return type(first)(collate(part) for part in zip(*items, strict=True))
    if hasattr(first, "__array__") or hasattr(first, "__dlpack__"):
        return pb.stack([pb.asarray(item) for item in items])
    return list(items)


def batch_rng() -> Any:
    """The random generator of the batch that is being loaded.

    A dataset that draws random numbers (augmentation, random crops) takes them from here: the stream depends on the
    loader's seed, the epoch and the batch only, so it is the same for any number and kind of workers and after a
    resume. Outside a loader it is the default generator.

    Example:
        >>> pb.random.uniform((2,), rng=pb.data.batch_rng()).shape
        (2,)
    """
    return _rng.get(None) or pb.random.default_generator()


def _mix(*words: int) -> int:
    """One 64-bit seed of several integers (the finaliser of splitmix64, chained)."""
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state


def _fetch(dataset: Any, join: Callable[[Sequence[Any]], Any] | None, seed: int, indices: list[int]) -> Any:
    """One batch; runs in the caller, a worker thread or a worker process."""
    token = _rng.set(pb.random.Generator(seed))
    try:
        if join is None and hasattr(dataset, "batch"):
            return dataset.batch(pb.tensor(indices, dtype=pb.int64))
        return (join or collate)([dataset[i] for i in indices])
    finally:
        _rng.reset(token)


# ---- worker processes

_job: tuple[Any, Any] | None = None


def _start_worker(dataset: Any, join: Any) -> None:
    global _job
    _job = (dataset, join)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    pb.set_num_threads(1)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent: Any) -> None:
    """Ends this process with its parent: a killed parent cannot close its queues."""
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _fetch_in_worker(seed: int, indices: list[int]) -> Any:
    assert _job is not None
    pb.manual_seed(seed)  # draws of a dataset that knows nothing of batch_rng
    return _fetch(*_job, seed, indices)


class DataLoader:
    """Iterates over a dataset in batches; each `for` loop over it is one epoch.

    A dataset has `__len__` and `__getitem__(i)`; where it also has `batch(indices)`, a whole batch is fetched by one
    call and `collate` is not used. Order and random draws depend on `seed`, the epoch and the batch only.

    Args:
        dataset: what to draw from.
        batch_size: items in a batch; the last batch of an epoch may be smaller.
        shuffle: a new order each epoch.
        drop_last: leave out a smaller last batch.
        seed: of the order and of `batch_rng`.
        workers: threads or processes that load ahead; 0 loads in the loop itself.
        worker_type: "thread", or "spawn" for new Python processes (never forked ones); then the dataset must pickle.
        prefetch: batches that each worker loads ahead.
        collate: makes a batch of a list of items; `pb.data.collate` where None.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> data = pb.data.TensorDataset(pb.arange(5))
        >>> [batch[0].tolist() for batch in pb.data.DataLoader(data, 2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        workers: int = 0,
        worker_type: str = "thread",
        prefetch: int = 2,
        collate: Callable[[Sequence[Any]], Any] | None = None,
    ):
        for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("prefetch", prefetch, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"DataLoader: {name} must be an integer of at least {least}, got {value!r}\n"
                    f"help: pass {name}={least}"
                )
        if worker_type not in ("thread", "spawn"):
            raise ValueError(f'DataLoader: unknown worker_type {worker_type!r}\nhelp: use "thread" or "spawn"')
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.seed, self.workers, self.worker_type, self.prefetch = seed, workers, worker_type, prefetch
        self.collate = collate
        self.epoch = 0
        self.position = 0  # batches of this epoch that were handed out
        self._continue = False
        self._pool: ProcessPoolExecutor | None = None

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self.position and not self._continue:  # the last loop was left early
            self.epoch, self.position = self.epoch + 1, 0
        self._continue = False
        return self._run(self.epoch, self.position)

    def _run(self, epoch: int, start: int) -> Iterator[Any]:
        order = self._order(epoch)
        size = self.batch_size
        jobs = ((_mix(self.seed, epoch, k), order[k * size : (k + 1) * size]) for k in range(start, len(self)))
        with contextlib.closing(self._load(jobs)) as batches:
            for k, batch in enumerate(batches, start + 1):
                self.epoch, self.position = epoch, k
                yield batch
        self.epoch, self.position = epoch + 1, 0

    def _order(self, epoch: int) -> list[int]:
        n = len(self.dataset)
        if not self.shuffle:
            return list(range(n))
        return pb.random.permutation(n, rng=pb.random.Generator(_mix(self.seed, epoch))).tolist()

    def _load(self, jobs: Iterator[tuple[int, list[int]]]) -> Generator[Any, None, None]:
        """Batches in the order of their jobs, a bounded number of them ahead."""
        if self.workers == 0:
            for job in jobs:
                yield _fetch(self.dataset, self.collate, *job)
            return
        pool, submit = self._start()
        ahead: deque[Future[Any]] = deque()
        try:
            for job in jobs:
                ahead.append(submit(job))
                if len(ahead) >= self.workers * self.prefetch:
                    yield self._result(ahead.popleft())
            while ahead:
                yield self._result(ahead.popleft())
        finally:
            for future in ahead:
                future.cancel()
            if pool is not self._pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> tuple[Executor, Callable[[tuple[int, list[int]]], Future[Any]]]:
        if self.worker_type == "thread":
            threads = ThreadPoolExecutor(self.workers, thread_name_prefix="pullback-loader")
            return threads, lambda job: threads.submit(_fetch, self.dataset, self.collate, *job)
        if self._pool is None:  # processes are slow to start: they stay for the next epoch
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self.dataset, self.collate),
            )
        pool = self._pool
        return pool, lambda job: pool.submit(_fetch_in_worker, *job)

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                "DataLoader: a worker process ended before it gave its batch\n"
                "help: the dataset must pickle, and a script must start its work under `if __name__ == '__main__':`"
            ) from error

    def close(self) -> None:
        """Ends the worker processes; a later loop starts new ones. They also end with the loader."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    # ---- position

    def _identity(self) -> dict[str, Any]:
        return {
            "length": len(self.dataset),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out: batches that were only loaded ahead do not count."""
        return {"epoch": self.epoch, "position": self.position} | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets the next loop go on at a saved position.

        Raises:
            CheckpointError: the state is of a loader with another dataset length, batch size, order or seed.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise pb.CheckpointError(
                    f"DataLoader: the saved position has {key}={state.get(key)!r}, this loader has {value!r}\n"
                    "help: resume with the data and the loader arguments of the first run"
                )
        self.epoch, self.position = state["epoch"], state["position"]
        self._continue = True
