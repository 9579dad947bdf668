"""What .npy, .npz and HDF5 files may do wrong, and that large ones are never read as a whole."""

import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vogcore.data import ArraySource, open_source
from vogcore.data.arrays import NpzFile, map_npy
from vogcore.data.hdf5 import Hdf5File, _cache_bytes
from vogcore.errors import DataError

X = np.arange(4 * 3, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def npy_bytes(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def is_mapped(array: np.ndarray) -> bool:
    return isinstance(array, np.memmap)


def test_npy_is_mapped(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0)):
        path = tmp_path / "x.npy"
        path.write_bytes(npy_bytes(X, version))
        mapped = map_npy(path)
        assert is_mapped(mapped)
        np.testing.assert_array_equal(mapped, X)
    np.save(path, np.float64(3.5))
    assert map_npy(path).shape == ()
    assert map_npy(path) == 3.5
    np.save(path, np.zeros((0, 4)))
    assert map_npy(path).shape == (0, 4)


def test_a_sparse_npy_larger_than_memory_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    header = io.BytesIO()
    n = 1 << 20
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (n, 1 << 16)})
    with open(path, "wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + n * (1 << 16) * 4)  # 256 GiB, of which the disk holds a page
    source = open_source(path, np.zeros(n, np.uint8))
    assert source.read(n - 2, n).shape == (2, 1 << 16)


def test_stored_npz_members_are_mapped_and_compressed_ones_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "stored.npz", x=X, y=Y, names=np.array(["ä", "b"]))
    np.savez_compressed(tmp_path / "packed.npz", x=X, y=Y, names=np.array(["ä", "b"]))
    for name, mapped in (("stored", True), ("packed", False)):
        file = NpzFile(tmp_path / f"{name}.npz")
        assert is_mapped(file.rows("x")) is mapped
        np.testing.assert_array_equal(file.rows("x"), X)
        np.testing.assert_array_equal(file.values("y"), Y)
        assert file.values("names").tolist() == ["ä", "b"]


def test_unaligned_npz_members_come_out_aligned(tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.zeros(1, np.uint8)))  # shifts what follows by an odd number of bytes
        archive.writestr("x.npy", npy_bytes(X.astype(np.float64)))
        archive.writestr("readme.txt", b"not an array")
    source = open_source(path, Y)
    assert not source._rows.flags.aligned
    assert source.read(1, 3).flags.aligned
    np.testing.assert_array_equal(source.read(1, 3), X[1:3])
    with pytest.raises(DataError) as caught:
        open_source(path, Y, x_name="readme.txt")
    assert "readme" not in str(caught.value).partition("holds")[2]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(method: int, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", npy_bytes(X))
    np.testing.assert_array_equal(open_source(path, Y).read(0, 4), X)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pickles_are_never_loaded(save, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap(), Trap()], dtype=object)
    save(tmp_path / "data.npz", x=trap, y=np.array([0, 1]))
    np.save(tmp_path / "data.npy", trap)
    save(tmp_path / "labels.npz", x=np.zeros(2), y=trap)
    for name in ("data.npz", "data.npy", "labels.npz"):
        labels = None if name == "labels.npz" else [0, 1]
        with pytest.raises(DataError, match="pickled Python objects"):
            open_source(tmp_path / name, labels)
    assert not (tmp_path / "sprung").exists()


def test_damaged_members(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=200), y=np.zeros(200, int))
    whole = bytearray(path.read_bytes())
    whole[600] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"'x'\) is damaged"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"not an array at all")
    with pytest.raises(DataError, match=r"not in \.npy format"):
        open_source(path, Y)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("x.npy", npy_bytes(X)[:-4])
        with pytest.raises(DataError, match=r"'x'\) is truncated"):
            open_source(path, Y)


def test_a_directory_that_points_outside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=X)
    whole = bytearray(path.read_bytes())
    end = whole.index(b"PK\x05\x06")
    whole[end + 17] += 2  # where the central directory starts: all offsets inside become negative
    path.write_bytes(whole)
    with pytest.raises(DataError, match="damaged"):
        open_source(path, Y)


def test_encrypted_members(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=X)
    whole = bytearray(path.read_bytes())
    central = whole.index(b"PK\x01\x02")
    whole[central + 8] |= 1  # general purpose flag, bit 0
    path.write_bytes(whole)
    with pytest.raises(DataError, match="encrypted"):
        open_source(path, Y)
    with pytest.raises(DataError, match=r"'x' \(unreadable\)"):
        open_source(path, Y, x_name="z")


def test_headers_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**12)})
    path.write_bytes(header.getvalue() + bytes(64))
    with pytest.raises(DataError, match=r"is truncated: an array .* needs 8000000000000000000000000 bytes"):
        open_source(path, Y)
    path.write_bytes(b"\x93NUMPY\x03\x00" + struct.pack("<I", 64) + b" " * 64)
    with pytest.raises(DataError, match=r"unknown \.npy version"):
        open_source(path, Y)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 64) + b"{" * 64)
    with pytest.raises(DataError, match="damaged or truncated header"):
        open_source(path, Y)


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz"])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_never_ends_in_another_error(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind[-3:]}"
    if kind == "npy":
        np.save(path, X)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, x=X)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    message = str(path)
    try:
        read = open_source(path, np.zeros(4, int)).read(0, 4).nbytes
    except DataError as error:
        read, message = 0, str(error)
    assert read <= X.nbytes
    assert str(path) in message
    assert "\n" not in message


def test_hdf5_is_read_by_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "huge.h5"
    n, width = 1 << 20, 1 << 16
    with h5py.File(path, "w") as file:  # 256 GiB by its length, of which the disk holds a few pages
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((n, width)), plist)
        file["x"][7, :3] = [1, 5, 6]
        file["y"] = np.zeros(n, np.uint8)
    with open_source(path) as source:
        block = source.read(7, 8)
        assert block.shape == (1, width)
        assert block[0, :4].tolist() == [1, 5, 6, 0]
        with h5py.File(path, "r") as file, open_source(file["x"], np.zeros(n, int)) as direct:
            np.testing.assert_array_equal(direct.read(7, 8), block)
    with pytest.raises(DataError, match=r"'x'\) has shape \(1048576, 65536\) where a one-dimensional"):
        open_source(path, y_name="x")


def test_hdf5_bytes_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((100, 10), np.float32)
        file["y"] = np.zeros(100, int)
    rows: list[int] = []
    original = h5py.Dataset.__getitem__

    def spy(self: h5py.Dataset, key: object, **options: object) -> object:
        result = original(self, key, **options)
        if self.name == "/x":
            rows.append(len(result))
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    source = open_source(path)
    assert sum(rows) <= 1  # the one example that shows that reading works
    rows.clear()
    source.read(10, 14)
    assert rows == [4]


def test_hdf5_chunk_cache_holds_a_run_of_chunks(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        big = file.create_dataset("x", (4000, 600), np.float32, chunks=(1000, 250), compression="gzip")
        big[:] = np.random.default_rng(0).integers(0, 3, (4000, 600))
        file["y"] = np.zeros(4000, int)
        huge = file.create_dataset("huge", (10**6, 10**6), np.float32, chunks=(10**5, 10**3))
        assert _cache_bytes(big) == 2 * 3 * 1000 * 250 * 4
        assert _cache_bytes(huge) == 0
        assert _cache_bytes(file["y"]) == 0
        expected = big[2990:3010]
    opened = Hdf5File(path)
    rows = opened.rows("x")
    assert opened._file.id.get_access_plist().get_cache()[2] == 6_000_000
    np.testing.assert_array_equal(rows[2990:3010], expected)
    opened.close()


def test_closed_sources_say_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["y"] = X, Y
    with open_source(tmp_path / "data.h5") as source:
        assert isinstance(source, ArraySource)
    with pytest.raises(DataError, match="was closed"):
        source.read(0, 1)


def test_hdf5_file_open_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    script = (
        f"import sys, h5py; file = h5py.File({str(path)!r}, 'w'); file['x'] = [1.0]; print('open', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(DataError, match="open for writing elsewhere"):
            open_source(path)
        writer.communicate()


def test_hdf5_file_is_closed_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = X, Y[:2]
    with pytest.raises(DataError, match="2 labels for 4 examples"):
        open_source(path)
    with h5py.File(path, "r+") as file:  # fails while the file is still open for reading
        file["z"] = 1


def test_hdf5_damage_in_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", data=np.arange(8.0).reshape(4, 2), chunks=(2, 2), fletcher32=True)
        file["y"] = Y
        offset = x.id.get_chunk_info(1).byte_offset
    whole = bytearray(path.read_bytes())
    whole[offset] ^= 1
    path.write_bytes(whole)
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 2), [[0, 1], [2, 3]])
    with pytest.raises(DataError, match=r"'x'\) cannot be read, so the file is damaged"):
        source.read(2, 4)


def test_hdf5_filter_that_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4, 3))
        plist.set_filter(511, h5py.h5z.FLAG_OPTIONAL, ())  # a number kept free for private use
        space = h5py.h5s.create_simple(X.shape)
        raw = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plist)
        raw.write_direct_chunk((0, 0), X.tobytes(), 0)
        file["y"] = Y
    with pytest.raises(DataError, match=r"HDF5 filter 511, which is not installed here: pip install vogcore"):
        open_source(path)


def test_hdf5_values_in_other_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as part:
        part["images"] = X
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("part.h5", "images", (4, 3))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_virtual_dataset("x", layout, fillvalue=0)
        file["y"] = Y
    np.testing.assert_array_equal(open_source(tmp_path / "data.h5").read(1, 4), X[1:4])
    with h5py.File(tmp_path / "part.h5", "w") as part:
        part["images"] = X[:3]
    with pytest.raises(DataError, match=r"'images' in part\.h5 has only shape \(3, 3\)"):
        open_source(tmp_path / "data.h5")
    pieces = h5py.VirtualLayout((2, 3), np.float32)
    pieces[:] = h5py.VirtualSource("part.h5", "images", (4, 3))[1:3]
    with h5py.File(tmp_path / "pieces.h5", "w") as file:
        file.create_virtual_dataset("x", pieces, fillvalue=0)
    assert open_source(tmp_path / "pieces.h5", Y[:2]).read(0, 2).tolist() == X[1:3].tolist()
    with h5py.File(tmp_path / "part.h5", "w") as part:
        part["images"] = X[:2]
    with pytest.raises(DataError, match=r"'images' in part\.h5 has only shape \(2, 3\)"):
        open_source(tmp_path / "pieces.h5", Y[:2])
    (tmp_path / "part.h5").unlink()
    with pytest.raises(DataError, match=r"'images' in part\.h5 is missing"):
        open_source(tmp_path / "data.h5")
    X.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("x", (4, 3), np.float32, external=[(str(tmp_path / "raw.bin"), 0, X.nbytes)])
    with pytest.raises(DataError, match="keeps its values in other files"):
        open_source(tmp_path / "outside.h5", Y)


def test_hdf5_without_values_and_broken_links(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = h5py.Empty(np.float32)
        file["images"] = h5py.SoftLink("/nowhere")
        file["data"] = h5py.ExternalLink("nowhere.h5", "x")
    with pytest.raises(DataError, match="data set without values"):
        open_source(tmp_path / "data.h5", Y)
    for name in ("images", "data", ""):
        with pytest.raises(DataError, match=f"no {name!r} for the examples"):
            open_source(tmp_path / "data.h5", Y, x_name=name)
