"""Data files that somebody made to do harm: other people's files, hangs, crashes, memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from vogcore.data import open_source
from vogcore.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])

READ = """
import resource, sys
from vogcore.data import open_source
from vogcore.errors import DataError
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
try:
    source = open_source(sys.argv[1], require_labels=False)
    print("read", source.read(0, len(source)).shape)
except DataError as error:
    print(error)
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def read_apart(path: Path) -> tuple[str, int]:
    """What a process of its own says, and the most memory that it had (MiB)."""
    result = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    message, memory = result.stdout.splitlines()
    return message, int(memory)


@pytest.fixture
def folders(tmp_path):
    """A folder that a stranger gave, and a secret beside it."""
    (tmp_path / "given").mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = X
    return tmp_path / "given", tmp_path / "secret.h5"


def link(target: Path, name: Path) -> str:
    os.symlink(target, name)
    return name.name


@pytest.mark.parametrize(
    "name",
    [lambda f, s: str(s), lambda f, s: "../secret.h5", lambda f, s: link(s, f / "inside.h5"),
     lambda f, s: f"../{f.name}/../secret.h5"],
    ids=["absolute", "upwards", "symbolic link", "there and back"],
)  # fmt: skip
def test_no_file_outside_of_the_folder_is_opened(folders, name):
    given, secret = folders
    name = name(given, secret)
    with h5py.File(given / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink(name, "x")
    with h5py.File(given / "chain.h5", "w") as file:
        file["x"] = h5py.SoftLink("/group/x")
        file["group"] = h5py.ExternalLink("link.h5", "/")
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource(name, "x", (4, 3))
    with h5py.File(given / "virtual.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("virtual.h5", "x", (4, 3))
    with h5py.File(given / "nested.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("link.h5", "x", (4, 3))
    with h5py.File(given / "through.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    for path in ("link.h5", "chain.h5", "virtual.h5", "nested.h5", "through.h5"):
        with pytest.raises(DataError, match="outside of the folder") as caught:
            open_source(given / path, Y)
        assert "\n" not in str(caught.value)


def test_files_of_the_same_folder_may_be_linked(tmp_path):
    (tmp_path / "parts").mkdir()
    with h5py.File(tmp_path / "parts/one.h5", "w") as file:
        file["a/b"] = X
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["group"] = h5py.ExternalLink("parts/one.h5", "/a")
        file["x"] = h5py.SoftLink("group/b")
        file["y"] = Y
    np.testing.assert_array_equal(open_source(tmp_path / "data.h5").read(1, 3), X[1:3])


def test_links_that_go_round_and_round(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = h5py.SoftLink("/images")
        file["images"] = h5py.SoftLink("/x")
    with pytest.raises(DataError, match="behind more than 16 links"):
        open_source(tmp_path / "data.h5", Y)
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("virtual.h5", "x", (4, 3))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    with pytest.raises(DataError, match="behind more than 16 links"):
        open_source(tmp_path / "virtual.h5", Y)


def test_virtual_data_without_a_source_for_some_of_it(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = X
    layout = h5py.VirtualLayout((1 << 40, 3), np.float32)
    layout[:4] = h5py.VirtualSource("part.h5", "x", (4, 3))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    message, memory = read_apart(tmp_path / "data.h5")
    assert "no file holds some of its values" in message
    assert memory < 300


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("virtual", [False, True])
def test_a_heap_that_libhdf5_would_walk_through_for_ever(libver, virtual, tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w", libver=libver) as file:
        if virtual:
            file["part"] = X
            layout = h5py.VirtualLayout((4, 3), np.float32)
            layout[:] = h5py.VirtualSource(".", "part", (4, 3))
            file.create_virtual_dataset("x", layout)
        else:
            file["x"], file["ids"] = X, ["a", "b", "c", "d"]
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(content)
    message, _ = read_apart(path)
    assert "global heap" in message


def test_text_that_refers_to_other_text_than_there_is(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["ids"] = X, ["a", "b", "c", "d"]
        at = file["ids"].id.get_offset()
    whole = path.read_bytes()
    for offset, value in ((0, 0xF0000000), (0, 2), (4, 1 << 40), (12, 77)):
        content = bytearray(whole)
        struct.pack_into("<I" if offset != 4 else "<Q", content, at + offset, value)
        path.write_bytes(content)
        message, memory = read_apart(path)
        assert "global heap" in message
        assert memory < 300


def test_the_same_long_text_over_and_over(tmp_path):
    path = tmp_path / "data.h5"
    n = 5000
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((n, 1), np.float32)
        file["ids"] = ["a" * 200_000] + ["b"] * (n - 1)
        at = file["ids"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[at + 16 : at + 16 * n] = bytes(content[at : at + 16]) * (n - 1)  # a gigabyte of text from one of 600 KB
    path.write_bytes(content)
    message, memory = read_apart(path)
    assert "the same long text over and over" in message
    assert memory < 300


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1 << 60,), "dtype": "f4"},
        {"shape": (1 << 50, 1 << 9), "dtype": "u1", "chunks": (1, 1 << 9)},
        {"shape": (4, 1 << 40), "dtype": "u1", "chunks": (1, 1 << 30), "compression": "gzip"},
        {"shape": (1 << 40, 3), "dtype": "f4", "chunks": (1 << 20, 3), "compression": "gzip"},
    ],
    ids=["contiguous", "chunked", "wide and compressed", "long and compressed"],
)
def test_shapes_without_data_are_not_believed(options, tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("x", **options)
    message, memory = read_apart(tmp_path / "data.h5")
    assert "('x') claims" in message
    assert memory < 300


def test_examples_that_were_never_written(tmp_path):
    for options in ({}, {"chunks": (1, 3)}, {"chunks": (1, 3), "compression": "gzip"}):
        with h5py.File(tmp_path / "data.h5", "w") as file:
            x = file.create_dataset("x", (4, 3), "f4", **options)
            if options:
                x[:3] = 1  # and zeros would come for the last one
        with pytest.raises(DataError, match=r"\('x'\) was never written in full"):
            open_source(tmp_path / "data.h5", Y)


@pytest.mark.parametrize("stored", [zlib.compress(b""), zlib.compress(bytes(8)), zlib.compress(bytes(1 << 20)), b""])
def test_chunks_of_another_size(stored, tmp_path):
    for checksum in (False, True):
        with h5py.File(tmp_path / "data.h5", "w") as file:
            x = file.create_dataset("x", data=X, chunks=(4, 3), compression="gzip", fletcher32=checksum)
            x.id.write_direct_chunk((0, 0), stored or b"\0")
        message, memory = read_apart(tmp_path / "data.h5")
        assert "('x') cannot be read" in message
        assert memory < 300


def test_labels_that_are_references(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = X
        file.create_dataset("y", (4,), h5py.ref_dtype)[:] = [file["x"].ref] * 4
        file.create_dataset("images", (4,), h5py.vlen_dtype(np.float32))[:] = [X[0]] * 4
    with pytest.raises(DataError, match="neither numbers nor text"):
        open_source(tmp_path / "data.h5")
    with pytest.raises(DataError, match="Python objects"):
        open_source(tmp_path / "data.h5", Y, x_name="images")


def header(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def write_zip(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED, claimed: int | None = None) -> None:
    """An archive with ``x.npy``, whose directory may claim another size than the content has."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", content)
    if claimed is not None:
        whole = bytearray(path.read_bytes())
        struct.pack_into("<I", whole, whole.index(b"PK\x01\x02") + 24, claimed)
        path.write_bytes(whole)


def test_arrays_of_a_petabyte(tmp_path):
    bomb = header("<f4", (1 << 48,))
    (tmp_path / "x.npy").write_bytes(bomb + bytes(100))
    with pytest.raises(DataError, match="is truncated"):
        open_source(tmp_path / "x.npy", Y)
    write_zip(tmp_path / "x.npz", bomb + bytes(100))
    message, memory = read_apart(tmp_path / "x.npz")
    assert "is truncated" in message
    assert memory < 300


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_directory_that_claims_more_than_there_is(method, tmp_path):
    write_zip(tmp_path / "x.npz", header("<f4", (1 << 29,)) + bytes(100), method, claimed=0xFFFFFFF0)
    message, memory = read_apart(tmp_path / "x.npz")
    assert "is truncated" in message or "is damaged" in message
    assert memory < 300


def test_a_header_that_is_a_bomb(tmp_path):
    bomb = b"\x93NUMPY\x02\x00" + struct.pack("<I", (1 << 31) - 1) + b" " * (300 << 20)
    write_zip(tmp_path / "x.npz", bomb)
    assert (tmp_path / "x.npz").stat().st_size < 1 << 20
    message, memory = read_apart(tmp_path / "x.npz")
    assert "damaged header (too long)" in message
    assert memory < 300


def test_a_dictionary_of_four_gigabytes(tmp_path):
    write_zip(tmp_path / "x.npz", header("<f4", (4, 3)) + X.tobytes(), zipfile.ZIP_LZMA)
    whole = bytearray((tmp_path / "x.npz").read_bytes())
    at = whole.index(b"x.npy") + len(b"x.npy")
    struct.pack_into("<I", whole, at + 5, 0xFFFFFFFF)
    (tmp_path / "x.npz").write_bytes(whole)
    message, memory = read_apart(tmp_path / "x.npz")
    assert "asks LZMA for 4294967295 bytes" in message
    assert memory < 300


@pytest.mark.parametrize("descr", ["|V0", "|S0", "<U0"])
def test_values_of_no_size(descr, tmp_path):
    for shape in ((1 << 60,), (4,)):
        (tmp_path / "x.npy").write_bytes(header(descr, shape))
        with pytest.raises(DataError, match="values of no size"):
            open_source(tmp_path / "x.npy", Y)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('touch sprung')", "{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,)}",
     "(" * 9000, "{'descr': [('a', '<f4', (" + "9" * 4000 + ",))], 'fortran_order': False, 'shape': (1,)}",
     "{'descr': 'O', 'fortran_order': False, 'shape': (4,)}", "{'descr': '|O8', 'fortran_order': False, 'shape': ()}"],
    ids=["code", "a float as length", "deep", "a long number", "objects", "one object"],
)  # fmt: skip
def test_headers_are_parsed_and_never_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = text.encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + bytes(64))
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "x.npy", Y)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
