"""Score files and archives that somebody made to do harm: hangs, crashes, memory, other people's files, terminals.

Where a check that fails would take the test run down with it, the file is read in a process of its own.
"""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np
import pytest

from tests.fuzz.hdf5_checksum import mended
from vogcore._hdf5_headers import HeaderError
from vogcore._hdf5_heaps import check_all_heaps, check_object_heaps
from vogcore.errors import StoreError
from vogcore.store import open_gradients, open_scores

READ = """
import resource, sys
from vogcore.errors import StoreError
from vogcore.store import open_gradients, open_scores
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
try:
    (open_scores if sys.argv[1] == "scores" else open_gradients)(sys.argv[2])
except StoreError as error:
    print(error)
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.fixture
def saved(make_scores, tmp_path):
    make_scores().save(tmp_path / "s.h5")
    return tmp_path / "s.h5"


@pytest.fixture
def archive(write_archive, tmp_path):
    write_archive(tmp_path / "g.h5", labels=np.arange(10) % 3)
    return tmp_path / "g.h5"


def read_apart(run_python, kind, path) -> tuple[str, int]:
    """What a process of its own says, and the most memory that it had (MiB)."""
    result = run_python(READ, kind, path)
    assert result.returncode == 0, result.stderr
    message, memory = result.stdout.splitlines()
    return message, int(memory)


@pytest.mark.parametrize("kind", ["scores", "gradients"])
@pytest.mark.parametrize(
    "size",
    [0, (1 << 64) - 16, (1 << 64) - 8, 1 << 40],
    ids=["empty", "of nothing after rounding up", "negative", "beyond the file"],
)
def test_a_heap_that_libhdf5_would_walk_through_for_ever(kind, size, saved, archive, run_python):
    path = saved if kind == "scores" else archive
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    struct.pack_into("<Q", content, heap + 24, size)  # of the first object
    if size == 0:
        struct.pack_into("<H", content, heap + 16, 0)  # which is free space
    path.write_bytes(content)
    message, memory = read_apart(run_python, kind, path)
    assert f"its global heap at byte {heap} is damaged" in message
    assert memory < 300


@pytest.mark.parametrize("following", ["itself", "outside", "of another file"])
def test_free_space_among_the_names_of_a_group_that_never_ends(following, archive, run_python):
    """The list of free space in a local heap, which libhdf5 keeps in memory while it follows it."""
    content = bytearray(archive.read_bytes())
    changed = 0
    start = content.find(b"HEAP")
    while start >= 0:
        size, free, segment = struct.unpack_from("<QQQ", content, start + 8)
        if free != 1:
            struct.pack_into(
                "<Q", content, segment + free, {"itself": free, "outside": size, "of another file": 1 << 60}[following]
            )
            changed += 1
        start = content.find(b"HEAP", start + 1)
    assert changed
    archive.write_bytes(content)
    message, memory = read_apart(run_python, "gradients", archive)
    assert "local heap at byte" in message
    assert "is damaged" in message
    assert memory < 200


def test_a_length_that_is_not_that_of_the_text(archive, run_python):
    content = bytearray(archive.read_bytes())
    heap = content.index(b"GCOL")
    at = content.index(struct.pack("<Q", heap), content.index(b"format_version"))
    struct.pack_into("<I", content, at - 4, 0xF0000000)  # 4 GB, for which libhdf5 would make room
    archive.write_bytes(content)
    message, memory = read_apart(run_python, "gradients", archive)
    assert "its global heap" in message
    assert memory < 300


def test_four_letters_among_numbers_are_no_heap(make_scores, tmp_path):
    path = tmp_path / "s.h5"
    scores = make_scores()
    scores.stages["all"].vog_raw[2] = np.frombuffer(b"GCOL\x01\x07\x07\x07", "<f8")[0]
    scores.save(path)
    assert b"GCOL\x01\x07" in path.read_bytes()
    check_all_heaps(path)
    np.testing.assert_array_equal(open_scores(path).vog_raw, scores.vog_raw)


def test_many_heaps_on_top_of_one_another_do_not_take_for_ever(tmp_path):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(4000, "u1")
    content = bytearray(path.read_bytes())
    # Each one holds objects of 16 bytes up to the end of the file, and the next one begins inside of it.
    one = b"GCOL\x01\0\0\0" + struct.pack("<Q", 0) + struct.pack("<HHIQ", 1, 1, 0, 0)
    start = len(content)
    content += one * 2000
    for number in range(2000):
        at = start + number * len(one)
        struct.pack_into("<Q", content, at + 8, len(content) - at)
    path.write_bytes(content)
    with pytest.raises(HeaderError, match="heap"):
        check_all_heaps(path)


def test_a_header_that_leads_back_to_itself(archive):
    with h5py.File(archive) as file:
        root = h5py.h5o.get_info(file.id).addr
    content = bytearray(archive.read_bytes())
    struct.pack_into("<HHB", content, root + 16, 0x10, 16, 0)
    struct.pack_into("<QQ", content, root + 24, root + 16, 64)
    archive.write_bytes(content)
    with pytest.raises(HeaderError, match="leads back to itself"):
        check_object_heaps(archive)
    with pytest.raises(StoreError):
        open_gradients(archive)


def test_a_chunk_that_holds_less_than_it_should(saved, run_python):
    vog = open_scores(saved).vog
    for filters in ({}, {"fletcher32": True}):
        for stored in (zlib.compress(b""), zlib.compress(b"abc"), zlib.compress(bytes(47)), b"x"):
            with h5py.File(saved, "a") as file:
                attributes = dict(file["scores/all/vog"].attrs)
                del file["scores/all/vog"]
                data = file.create_dataset("scores/all/vog", (6,), "<f8", compression="gzip", chunks=(6,), **filters)
                data[:] = vog
                data.attrs.update(attributes)
                data.id.write_direct_chunk((0,), stored + b"\0\0\0\0" * bool(filters))
            message, _ = read_apart(run_python, "scores", saved)
            assert "scores/all/vog cannot be read" in message


def test_an_index_with_fewer_places_than_chunks(saved, run_python):
    with h5py.File(saved, "a", libver="latest") as file:
        attributes = dict(file["scores/all/vog"].attrs)
        del file["scores/all/vog"]
        data = file.create_dataset(
            "scores/all/vog", data=np.arange(6.0), compression="gzip", chunks=(2,), maxshape=(8,)
        )
        data.attrs.update(attributes)
    assert open_scores(saved).vog.tolist() == list(range(6))
    content = saved.read_bytes()
    extent = content.index(struct.pack("<QQ", 6, 8))  # shape and largest shape
    saved.write_bytes(mended(content[: extent + 8] + struct.pack("<Q", 1 << 40) + content[extent + 16 :]))
    message, _ = read_apart(run_python, "scores", saved)
    assert "the index of its chunks has 4 entries" in message


def test_shapes_without_data_are_not_believed(saved, archive, run_python):
    for options in (
        {"shape": (1 << 60,), "dtype": "u1"},
        {"shape": (1 << 40,), "dtype": "i8", "chunks": (1 << 20,)},
        {"shape": (1 << 40,), "dtype": "i8", "chunks": (1 << 20,), "compression": "gzip"},
        {"shape": (2,), "dtype": "S1000000000"},
    ):
        with h5py.File(saved, "a") as file:
            del file["examples/id"]
            file.create_dataset("examples/id", **options)
        message, memory = read_apart(run_python, "scores", saved)
        assert "examples/id" in message
        assert memory < 300
    with h5py.File(archive, "a") as file:
        del file["gradients"]
        data = file.create_dataset("gradients", (3, 1 << 50, 4), "f4", chunks=(1, 4, 4))
        data.attrs.update(block_size=4, bfloat16=False)
    message, memory = read_apart(run_python, "gradients", archive)
    assert "gradients claims" in message
    assert memory < 300


def test_chunks_that_were_never_written(saved):
    with h5py.File(saved, "a") as file:
        del file["predictions/class"]
        data = file.create_dataset("predictions/class", (6, 6), "i4", chunks=(2, 6), compression="gzip")
        data[:2] = 1
    with pytest.raises(StoreError, match="predictions/class was never written in full"):
        open_scores(saved)


@pytest.mark.parametrize("value", ["[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70], ids=["lists", "objects"])
def test_settings_nested_beyond_reason(saved, value):
    with h5py.File(saved, "a") as file:
        file.attrs["settings"] = f'{{"x": {value}}}'
    with pytest.raises(StoreError, match="attribute settings of / is nested more than 64 deep"):
        open_scores(saved)


def test_numbers_beyond_reason_in_settings(saved):
    with h5py.File(saved, "a") as file:
        file.attrs["settings"] = '{"x": ' + "9" * 5000 + "}"
    with pytest.raises(StoreError, match="attribute settings of / cannot be read"):
        open_scores(saved)
    with h5py.File(saved, "a") as file:
        file.attrs["settings"] = '{"x": 1e999}'
    assert open_scores(saved).settings["x"] == np.inf


@pytest.mark.parametrize("version", ["2" * 5000 + ".0", "\u00b2.0", "2.0\x1b[2J", "-1.0", "1", "1.0.0", ""])
def test_versions_that_are_none(saved, version):
    with h5py.File(saved, "a") as file:
        file.attrs["format_version"] = version
    with pytest.raises(StoreError) as caught:
        open_scores(saved)
    assert "its format_version is" in str(caught.value)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 400 + len(str(saved))


def test_what_a_file_says_about_itself_reaches_no_terminal(saved):
    with h5py.File(saved, "a") as file:
        file.attrs["format_version"] = "2.0"
        file.attrs["vogcore_version"] = "\x1b]0;pwned\x07" + "\n" * 1000
    with pytest.raises(StoreError, match="use vogcore of a version that knows it or newer") as caught:
        open_scores(saved)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_older_major_version_is_read(saved):
    with h5py.File(saved, "a") as file:
        file.attrs["format_version"] = "0.9"
    assert len(open_scores(saved)) == 6


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("scores/loop", "scores"),
        ("scores/loop", h5py.SoftLink("/scores/loop")),
        ("scores/loop", h5py.SoftLink("/scores")),
    ],
    ids=["a stage that is the group of stages", "a link to itself", "a link upwards"],
)
def test_groups_that_hold_themselves(saved, name, target):
    with h5py.File(saved, "a") as file:
        file[name] = file[target] if isinstance(target, str) else target
    with pytest.raises(StoreError, match="scores/loop"):
        open_scores(saved)


def test_a_group_that_nobody_asks_for_is_not_followed(saved):
    with h5py.File(saved, "a") as file:
        file["scores/all/all"] = file["scores"]
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "x")
    assert len(open_scores(saved)) == 6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores/all/vog", np.zeros(6, [("a", "f4"), ("b", "f4")]), "not float64"),
        ("classes/count", np.zeros(3, "V8"), "not int64"),
    ],
    ids=["compound", "opaque"],
)
def test_types_that_are_no_numbers(saved, name, value, message):
    with h5py.File(saved, "a") as file:
        del file[name]
        file[name] = value
    with pytest.raises(StoreError, match=message):
        open_scores(saved)


def test_references_are_no_labels(saved):
    with h5py.File(saved, "a") as file:
        del file["examples/label"]
        file.create_dataset("examples/label", (6,), h5py.ref_dtype)[:] = [file["scores"].ref] * 6
    with pytest.raises(StoreError, match="examples/label holds object, not int64"):
        open_scores(saved)


def test_maps_that_do_not_fit(saved):
    for index, shape, message in (
        (np.array([0, 6]), (2, 3), "a position is outside of 0 to 5"),
        (np.array([-1]), (1, 3), "a position is outside"),
        (np.array([2, 2]), (2, 3), "a position comes twice"),
        (np.array([2, 3]), (3, 3), r"maps/vog has shape \(3, 3\) for 2 examples"),
        (np.array([2.0]), (1, 3), "maps/index holds float64"),
    ):
        with h5py.File(saved, "a") as file:
            if "maps" in file:
                del file["maps"]
            file["maps/index"], file["maps/vog"] = index, np.zeros(shape, "f4")
        with pytest.raises(StoreError, match=message):
            open_scores(saved)
    with h5py.File(saved, "a") as file:
        del file["maps/vog"]
    with pytest.raises(StoreError, match="maps/"):
        open_scores(saved)


@pytest.mark.parametrize("place", [256, 4096, 65536, 1 << 24])
def test_a_heap_at_a_round_address_is_no_length(place, tmp_path):
    """Bytes of shapes and types can look like such an address."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", meta_block_size=place) as file:
        file.attrs.update({f"text {number}": "value" * number for number in range(1, 7)})
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    path.write_bytes(
        (content[:heap] + bytes(max(place - heap, 0)) + content[heap:]).replace(
            struct.pack("<Q", heap), struct.pack("<Q", max(place, heap))
        )
    )
    check_object_heaps(path)
