"""pb.save and pb.load: the safetensors format, whole files only, every kind of damage refused."""

import errno
import json
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

import pullback as pb
from pullback import io

DTYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]


def raw_file(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_every_dtype_and_shape_comes_back(tmp_path, name, shape):
    size = int(np.prod(shape))
    x = pb.reshape(pb.arange(size), shape).astype(getattr(pb, name))
    pb.save(tmp_path / "x", {"x": x})
    y = pb.load(tmp_path / "x")["x"]
    assert y.dtype == x.dtype and tuple(y.shape) == shape and y.tobytes() == x.tobytes()


def test_views_are_written_as_their_elements(tmp_path):
    x = pb.reshape(pb.arange(12), (3, 4))
    views = {"t": x.T, "row": x[1], "step": x[:, ::2], "back": x[::-1], "wide": pb.broadcast_to(x[0], (2, 4))}
    pb.save(tmp_path / "v", views)
    for name, y in pb.load(tmp_path / "v").items():
        np.testing.assert_array_equal(np.asarray(y.tolist()), np.asarray(views[name].tolist()))


def test_order_metadata_and_names(tmp_path):
    tensors = {"z": pb.ones(1, dtype=pb.int8), "ü/1": pb.ones(2), "a": pb.ones(3, dtype=pb.float64)}
    pb.save(tmp_path / "f", tensors, {"note": "héllo", "empty": ""})
    assert list(pb.load(tmp_path / "f")) == ["z", "ü/1", "a"]
    assert io.metadata(tmp_path / "f") == {"note": "héllo", "empty": ""}
    tensors, notes = io.read(tmp_path / "f")
    assert list(tensors) == ["z", "ü/1", "a"] and notes["note"] == "héllo"


def test_no_tensors(tmp_path):
    pb.save(tmp_path / "f", {})
    assert pb.load(tmp_path / "f") == {} and io.metadata(tmp_path / "f") == {}


def test_equal_tensors_give_equal_bytes(tmp_path):
    for name in "ab":
        pb.save(tmp_path / name, {"x": pb.arange(5), "y": pb.ones(3)}, {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_tensor_under_two_names_is_written_once(tmp_path):
    x = pb.arange(1000)
    pb.save(tmp_path / "f", {"a": x, "b": x.detach(), "c": x[:10]})
    assert os.path.getsize(tmp_path / "f") < 8000 + 80 + 600
    y = pb.load(tmp_path / "f")
    assert y["a"] is y["b"] and y["b"].tolist() == x.tolist() and y["c"].tolist() == list(range(10))


def test_loaded_memory_does_not_depend_on_the_file(tmp_path):
    pb.save(tmp_path / "f", {"a": pb.arange(4)})
    a = pb.load(tmp_path / "f")["a"]
    (tmp_path / "f").write_bytes(b"")
    a[0] = 7
    assert a.tolist() == [7, 1, 2, 3]


def test_tensors_are_aligned_in_the_file(tmp_path):
    pb.save(
        tmp_path / "f",
        {"b": pb.ones(3, dtype=pb.bool), "d": pb.ones(2, dtype=pb.float64), "h": pb.ones(1, dtype=pb.int16)},
    )
    raw = (tmp_path / "f").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    assert header["d"]["data_offsets"] == [0, 16] and header["h"]["data_offsets"] == [16, 18]


def test_the_format_is_that_of_the_safetensors_package(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy")
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(5), "e": np.zeros((0, 2), np.int32)}
    pb.save(tmp_path / "ours", {k: pb.asarray(v) for k, v in arrays.items()}, {"a": "b"})
    for name, y in theirs.load_file(tmp_path / "ours").items():
        assert y.dtype == arrays[name].dtype
        np.testing.assert_array_equal(y, arrays[name])
    theirs.save_file(arrays, tmp_path / "theirs", {"c": "d"})
    assert io.metadata(tmp_path / "theirs") == {"c": "d"}
    for name, y in pb.load(tmp_path / "theirs").items():
        assert tuple(y.shape) == arrays[name].shape
        np.testing.assert_array_equal(np.asarray(y.tolist()).reshape(y.shape), arrays[name])


# ---- what save refuses


@pytest.mark.parametrize(
    "tensors, metadata, kind, text",
    [
        ({1: pb.ones(1)}, None, TypeError, "names must be text"),
        ({"a": [1.0]}, None, TypeError, "'a' is a list, not a tensor"),
        ({"a": {"b": pb.ones(1)}}, None, TypeError, "'a' is a dict, not a tensor"),
        ({"__metadata__": pb.ones(1)}, None, ValueError, "belongs to the format"),
        ({}, {"step": 3}, TypeError, "metadata must be text"),
        ({}, {"pullback.crc32": "0"}, ValueError, "is reserved"),
    ],
)
def test_bad_arguments(tmp_path, tensors, metadata, kind, text):
    with pytest.raises(kind, match=text) as info:
        pb.save(tmp_path / "f", tensors, metadata)
    assert "\nhelp: " in str(info.value) and os.listdir(tmp_path) == []


def test_missing_folder_and_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="was not written"):
        pb.save(tmp_path / "none" / "f", {"a": pb.ones(1)})
    with pytest.raises(FileNotFoundError):
        pb.load(tmp_path / "none")


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """A limit on the file size stands for the disk: the kernel takes a part of the bytes and refuses the rest."""
    path = tmp_path / "f"
    pb.save(path, {"a": pb.ones(10)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="was not written and an older one is as it was") as info:
            pb.save(path, {"a": pb.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert info.value.errno == errno.EFBIG and "help: free space" in str(info.value)
    assert os.listdir(tmp_path) == ["f"] and path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_error_of_the_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "f"
    pb.save(path, {"a": pb.ones(10)})
    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device") as info:
        pb.save(path, {"a": pb.zeros(10)})
    assert info.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["f"] and path.read_bytes() == before


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "f")
    pb.save(tmp_path / "link", {"a": pb.ones(1)})
    assert (tmp_path / "link").is_symlink() and pb.load(tmp_path / "real" / "f")["a"].tolist() == [1.0]


def test_a_killed_save_leaves_the_old_file(tmp_path):
    """The process dies while it writes; the file under the final name is the old one, whole."""
    path = tmp_path / "f"
    pb.save(path, {"a": pb.ones(10)})
    code = (
        "import os, signal, zlib, pullback as pb\n"
        "zlib.crc32 = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pb.save({str(path)!r}, {{'a': pb.zeros(10)}})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert pb.load(path)["a"].tolist() == [1.0] * 10
    assert len(os.listdir(tmp_path)) == 2  # the temporary one stays until the next save
    for name in (f".f.{os.getppid()}.tmp", ".f.x.tmp", ".g.1234567.tmp"):
        (tmp_path / name).write_bytes(b"of a process that lives, of nobody, of another file")
    pb.save(path, {"a": pb.zeros(10)})
    assert sorted(os.listdir(tmp_path)) == sorted([f".f.{os.getppid()}.tmp", ".f.x.tmp", ".g.1234567.tmp", "f"])


# ---- what load refuses


DAMAGED = {
    "empty": (b"", "cut short: 0 bytes"),
    "short length": (b"\x01\x02", "cut short: 2 bytes"),
    "header beyond the end": (struct.pack("<Q", 50) + b"{}", "cut short: the header has 50 bytes but only 2 follow"),
    "oversized header": (struct.pack("<Q", 2**63) + b"{}", "oversized header"),
    "large header": (struct.pack("<Q", 100_000_001) + b"{}", "oversized header"),
    "no JSON": (struct.pack("<Q", 4) + b"{a:}", "header cannot be read"),
    "no UTF-8": (struct.pack("<Q", 3) + b'{"\xff', "header cannot be read"),
    "deep": (struct.pack("<Q", 200_000) + b"[" * 200_000, "header cannot be read"),
    "a list": (struct.pack("<Q", 2) + b"[]", "no JSON object"),
    "a long number": (struct.pack("<Q", 10_006) + b'{"a":' + b"9" * 10_000 + b"}", "header cannot be read"),
    "NaN": (struct.pack("<Q", 9) + b'{"a":NaN}', "NaN is no JSON"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_header(tmp_path, name):
    content, text = DAMAGED[name]
    (tmp_path / "f").write_bytes(content)
    for f in (pb.load, io.metadata):
        with pytest.raises(pb.CheckpointError, match=text) as info:
            f(tmp_path / "f")
        assert "\nhelp: " in str(info.value)


BAD_ENTRIES = {
    "dtype": ({"a": entry("F31")}, "unknown dtype 'F31'"),
    "dtype type": ({"a": entry(5)}, "unknown dtype 5"),
    "no object": ({"a": 1}, "needs dtype, shape and data_offsets"),
    "missing key": ({"a": {"dtype": "F32", "shape": [2]}}, "needs dtype, shape and data_offsets"),
    "further key": ({"a": entry() | {"x": 1}}, "needs dtype, shape and data_offsets"),
    "negative size": ({"a": entry(shape=(-2,))}, "bad shape"),
    "float size": ({"a": entry(shape=(2.0,))}, "bad shape"),
    "bool size": ({"a": entry(shape=(True, 2))}, "bad shape"),
    "size overflow": ({"a": entry(shape=(2**40, 2**40))}, f"needs {4 * 2**80} bytes"),
    "size of 64 bits": ({"a": entry(shape=(2**62,))}, f"needs {2**64} bytes"),
    "wrap around": ({"a": entry(shape=(2**62, 4, 0), offsets=(0, 8))}, "needs 0 bytes but has 8"),
    "too many axes": ({"a": entry(shape=(1,) * 33)}, "bad shape"),
    "size differs": ({"a": entry(shape=(3,))}, "needs 12 bytes but has 8"),
    "backwards": ({"a": entry(offsets=(8, 0))}, "needs 8 bytes but has -8"),
    "negative offset": ({"a": entry(offsets=(-8, 0))}, "bad data_offsets"),
    "one offset": ({"a": entry(offsets=(0,))}, "bad data_offsets"),
    "out of range": ({"a": entry(offsets=(4, 12))}, "cut short: tensor 'a' ends at byte 12 of 8"),
    "far out of range": ({"a": entry(offsets=(2**62, 2**62 + 8))}, "cut short: tensor 'a' ends"),
    "overlap": ({"a": entry(), "b": entry(shape=(1,), offsets=(4, 8))}, "tensor 'b' overlaps another one"),
    "the same bytes": ({"a": entry(), "b": entry()}, "overlaps another one"),
    "gap at the start": ({"a": entry(shape=(1,), offsets=(4, 8))}, "4 bytes before tensor 'a' belong to no tensor"),
    "gap inside": (
        {"a": entry(dtype="U8", offsets=(0, 2)), "b": entry(dtype="U8", offsets=(6, 8))},
        "4 bytes before tensor 'b' belong to no tensor",
    ),
    "bytes at the end": ({"a": entry(shape=(1,), offsets=(0, 4))}, "4 bytes at the end belong to no tensor"),
    "metadata": ({"__metadata__": {"a": 1}, "a": entry()}, "must map text to text"),
    "metadata list": ({"__metadata__": [], "a": entry()}, "must map text to text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ENTRIES)
def test_bad_entries(tmp_path, name):
    header, text = BAD_ENTRIES[name]
    with pytest.raises(pb.CheckpointError, match=text):
        pb.load(raw_file(tmp_path / "f", header, b"\0" * 8))


def test_duplicate_names(tmp_path):
    one = json.dumps(entry())
    with pytest.raises(pb.CheckpointError, match="duplicate name 'a'"):
        pb.load(raw_file(tmp_path / "f", f'{{"a":{one},"a":{one}}}'.encode(), b"\0" * 8))


def test_bytes_that_are_no_bools(tmp_path):
    with pytest.raises(pb.CheckpointError, match="bytes that are no bools"):
        pb.load(raw_file(tmp_path / "f", {"a": entry("BOOL", (3,), (0, 3))}, b"\0\2\1"))


@pytest.mark.parametrize("table", ['{"b": "none"}', '{"a": "a"}', "[]", "{", '{"b": 3}'])
def test_bad_table_of_shared_tensors(tmp_path, table):
    header = {"__metadata__": {"pullback.shared": table}, "a": entry()}
    if table == "[]":
        header["__metadata__"]["pullback.shared"] = '["a"]'
    with pytest.raises(pb.CheckpointError, match="table of shared tensors is damaged"):
        pb.load(raw_file(tmp_path / "f", header, b"\0" * 8))


def test_every_cut_and_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "f"
    pb.save(path, {"a": pb.arange(3), "b": pb.ones(2, dtype=pb.bool)}, {"k": "v"})
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(pb.CheckpointError):
            pb.load(path)
    start = 8 + int.from_bytes(whole[:8], "little")
    for i in range(start, len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(pb.CheckpointError, match="checksum"):
            pb.load(path)


def test_the_checksum_is_that_of_the_data(tmp_path):
    pb.save(tmp_path / "f", {"a": pb.arange(3)})
    raw = (tmp_path / "f").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    assert header["__metadata__"]["pullback.crc32"] == f"{zlib.crc32(raw[start:]):08x}"


def test_metadata_does_not_read_the_data(tmp_path):
    pb.save(tmp_path / "f", {"a": pb.arange(3)}, {"k": "v"})
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "f").write_bytes(raw)
    assert io.metadata(tmp_path / "f") == {"k": "v"}
    with pytest.raises(pb.CheckpointError, match="checksum"):
        pb.load(tmp_path / "f")
