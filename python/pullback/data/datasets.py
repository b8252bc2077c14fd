"""Small real datasets: scikit-learn's digits, MNIST in IDX files, and text as character codes."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, NoReturn

import pullback as pb

from .loader import TensorDataset, batch_rng

_IDX_DTYPES = {0x08: "uint8", 0x09: "int8"}


def digits() -> tuple[TensorDataset, TensorDataset]:
    """The 1,797 handwritten digits that scikit-learn carries, as (train, test).

    The 360 test images are a fixed random choice. Each item is (image, label): float32 of shape (1, 8, 8) in 0..1,
    and an int64 0-d label in 0..9.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> train, test = pb.data.digits()  # doctest: +SKIP
        >>> len(train), len(test), train[0][0].shape  # doctest: +SKIP
        (1437, 360, (1, 8, 8))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits: the images are part of scikit-learn, which cannot be imported\n"
            'help: pip install "pullback[demo]", or pip install scikit-learn'
        ) from error
    bunch = load_digits()
    x = pb.reshape(pb.asarray(bunch.images).astype(pb.float32), (-1, 1, 8, 8)) / 16.0
    y = pb.asarray(bunch.target).astype(pb.int64)
    order = pb.random.permutation(x.shape[0], rng=pb.random.Generator(1797))
    everything = TensorDataset(x, y)
    return TensorDataset(*everything.batch(order[360:])), TensorDataset(*everything.batch(order[:360]))


def mnist(root: str | os.PathLike[str], train: bool = True, download: bool = False) -> TensorDataset:
    """MNIST (or a set of its form) from IDX files, plain or .gz, in the folder `root`.

    Looks for train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte.
    Where only the t10k files are there, train is their first 9,000 items and test their last 1,000. Each item is
    (image, label): float32 of shape (1, 28, 28) in 0..1, and an int64 0-d label.

    Args:
        root: the folder of the files.
        train: the training items, else the test items.
        download: not offered; True raises.

    Raises:
        ValueError: download=True.
        FileNotFoundError: a file is missing.
        CheckpointError: a file is cut short, is no IDX file, or images and labels differ in number.
    """
    if download:
        raise ValueError(
            "mnist: downloading is not offered\n"
            f"help: put the four IDX files (plain or .gz) into {os.fspath(root)!r} and pass download=False"
        )
    folder = Path(root)
    only_t10k = _find(folder, "train-images-idx3-ubyte") is None and _find(folder, "t10k-images-idx3-ubyte") is not None
    prefix = "train" if train and not only_t10k else "t10k"
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
    if images.shape[0] != labels.shape[0]:
        _bad(folder, f"{images.shape[0]} images but {labels.shape[0]} labels")
    if only_t10k:
        cut = min(9000, images.shape[0] * 9 // 10)
        part = slice(0, cut) if train else slice(cut, None)
        images, labels = images[part], labels[part]
    x = pb.expand_dims(images.astype(pb.float32) / 255.0, 1)
    return TensorDataset(x, labels.astype(pb.int64))


def _bad(path: Path, what: str) -> NoReturn:
    raise pb.CheckpointError(f"mnist: {path}: {what}\nhelp: fetch the file again; its size or content is not right")


def _find(folder: Path, name: str) -> Path | None:
    names = (name, name + ".gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz")
    return next((folder / n for n in names if (folder / n).is_file()), None)


def _read_idx(folder: Path, name: str, ndim: int) -> Any:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(
            f"mnist: no file {name} or {name}.gz in {folder}\nhelp: pass the folder that holds the IDX files as root"
        )
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        _bad(path, f"cut short or damaged: {error}")
    head = 4 + 4 * ndim
    if len(raw) < head:
        _bad(path, f"cut short: {len(raw)} bytes cannot hold the header")
    if raw[:2] != b"\0\0" or raw[2] not in _IDX_DTYPES or raw[3] != ndim:
        _bad(path, f"no IDX file of bytes with {ndim} axes")
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, head, 4))
    if len(raw) - head != math.prod(shape):
        _bad(path, f"cut short or too long: shape {shape} needs {math.prod(shape)} bytes, {len(raw) - head} are there")
    return pb._core.frombuffer(memoryview(raw)[head:], getattr(pb, _IDX_DTYPES[raw[2]]), shape)


class Text:
    """A text as codes of its characters, cut into a first part to train on and a last part to validate on.

    Attributes:
        vocabulary: the distinct characters, sorted; the code of a character is its place here.
        train: int64 codes of the first 90 percent.
        valid: int64 codes of the rest.

    Example:
        >>> t = pb.data.Text("hello world")
        >>> t.decode(t.encode("hold"))
        'hold'
    """

    def __init__(self, content: str):
        if not content:
            raise ValueError("text: the text is empty\nhelp: pass a file with at least one character")
        self.vocabulary = "".join(sorted(set(content)))
        self._codes = {ord(c): i for i, c in enumerate(self.vocabulary)}
        codes = self.encode(content)
        cut = len(content) * 9 // 10
        self.train, self.valid = codes[:cut], codes[cut:]

    def __len__(self) -> int:
        return self.train.shape[0] + self.valid.shape[0]

    def encode(self, content: str) -> Any:
        """The int64 codes of a string, shape (length,). Raises ValueError for a character that the text has not."""
        foreign = set(content).difference(self.vocabulary)
        if foreign:
            raise ValueError(
                f"encode: the vocabulary has no {''.join(sorted(foreign))!r}\nhelp: leave these characters out"
            )
        raw = content.translate(self._codes).encode("utf-32-le", "surrogatepass")
        return pb._core.frombuffer(raw, pb.int32, (len(content),)).astype(pb.int64)

    def decode(self, codes: Any) -> str:
        """The string of codes: a 1-D tensor or a sequence of integers."""
        codes = codes.tolist() if isinstance(codes, pb.Tensor) else codes
        if any(not 0 <= c < len(self.vocabulary) for c in codes):
            raise ValueError(
                f"decode: codes lie in 0..{len(self.vocabulary) - 1}\nhelp: pass codes of this text's vocabulary"
            )
        return "".join(self.vocabulary[c] for c in codes)


def text(path: str | os.PathLike[str]) -> Text:
    """Reads a UTF-8 file as a `Text`.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is empty or is not UTF-8.
    """
    try:
        return Text(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"text: {os.fspath(path)} is not UTF-8: {error}\nhelp: convert it, for instance with iconv"
        ) from error


class Windows:
    """Windows of a sequence of codes: item i is (`length` codes from i * stride on, the same moved by one).

    Args:
        codes: a 1-D integer tensor.
        length: of a window.
        stride: from one window to the next.

    Example:
        >>> x, y = pb.data.Windows(pb.arange(6), 3)[1]
        >>> x.tolist(), y.tolist()
        ([1, 2, 3], [2, 3, 4])
    """

    def __init__(self, codes: Any, length: int, stride: int = 1):
        if stride < 1:
            raise ValueError(
                f"Windows: stride must be at least 1, got {stride}\nhelp: stride=length leaves no code out"
            )
        if codes.ndim != 1 or not 1 <= length < codes.shape[0]:
            raise pb.ShapeError(
                f"Windows: windows of {length} codes do not fit codes of shape {codes.shape}\n"
                "help: pass 1-D codes with at least one element more than a window"
            )
        self.codes, self.length, self.stride = codes, length, stride

    def __len__(self) -> int:
        return (self.codes.shape[0] - self.length - 1) // self.stride + 1

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"Windows: index {i} is out of range for {len(self)} windows\nhelp: use 0 <= i < len()")
        i = i % len(self) * self.stride
        return self.codes[i : i + self.length], self.codes[i + 1 : i + 1 + self.length]

    def batch(self, indices: Any) -> tuple[Any, Any]:
        """Windows at `indices`: two int64 tensors of shape (len(indices), length)."""
        return self._from(indices * self.stride)

    def _from(self, starts: Any) -> tuple[Any, Any]:
        at = pb.expand_dims(starts, 1) + pb.arange(self.length)
        return pb.take(self.codes, at, axis=0), pb.take(self.codes, at + 1, axis=0)


class RandomWindows(Windows):
    """`count` windows at random places, new ones each epoch: what a language model trains on for a number of steps.

    The places come from `batch_rng`, so they depend on the loader's seed, the epoch and the batch only.

    Args:
        codes: a 1-D integer tensor.
        length: of a window.
        count: items in an epoch.
    """

    def __init__(self, codes: Any, length: int, count: int):
        super().__init__(codes, length)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        x, y = self.batch(pb.tensor([i]))
        return x[0], y[0]

    def batch(self, indices: Any) -> tuple[Any, Any]:
        places = self.codes.shape[0] - self.length
        return self._from(pb.random.randint(0, places, (indices.shape[0],), rng=batch_rng()))
