"""Archives that are incomplete, damaged or foreign; kills and disks that refuse."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest

from vogcore.errors import GradientError, OutputExistsError, StoreError
from vogcore.store import CheckpointInfo, GradientWriter, open_gradients


@pytest.fixture
def saved(tmp_path, write_archive):
    write_archive(tmp_path / "g.h5", labels=np.arange(10) % 3)
    return tmp_path / "g.h5"


def test_an_incomplete_archive_keeps_its_name_back_and_says_what_is_missing(tmp_path):
    path = tmp_path / "g.h5"
    writer = GradientWriter(path, 10, (2,), block_size=4)
    writer.write(0, 0, np.ones((10, 2)))
    writer.write(1, 0, np.full((7, 2), 2.0))
    message = r"the gradients of checkpoint '1' are missing from example 7 on; .*g\.h5\.partial\."
    with pytest.raises(GradientError, match=message), writer:
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["g.h5.partial"]
    with h5py.File(tmp_path / "g.h5.partial") as file:
        assert file["done"][:].tolist() == [[True] * 3, [True, False, False]]
        assert (file["gradients"][1, :7] == 2).all()
    message = "is incomplete: the gradients of checkpoint 1, examples 4 to 7, were never completed"
    with pytest.raises(StoreError, match=message):
        open_gradients(tmp_path / "g.h5.partial")


def test_a_digest_of_a_later_version_is_named(saved):
    with h5py.File(saved, "r+") as file:
        file["gradients"].attrs["digest"] = "sha3"
    with pytest.raises(StoreError, match=r"g\.h5 has digests of the kind 'sha3', which this version lacks"):
        open_gradients(saved)


def test_missing_logits_and_no_checkpoint_at_all(tmp_path):
    writer = GradientWriter(tmp_path / "a.h5", 3, ())
    writer.write(0, 0, np.zeros(3))
    writer.write_logits(0, 0, np.zeros((1, 2)))
    with pytest.raises(GradientError, match="the logits of checkpoint '0' are missing from example 1 on"):
        writer.close()
    with pytest.raises(GradientError, match="no checkpoint"), GradientWriter(tmp_path / "b.h5", 3, ()):
        pass
    with pytest.raises(StoreError, match="incomplete: it holds no checkpoint"):
        open_gradients(tmp_path / "b.h5.partial")
    with pytest.raises(StoreError, match="incomplete: the logits of checkpoint 0, examples 0 to 2"):
        open_gradients(tmp_path / "a.h5.partial")


def test_announced_checkpoints_that_a_kill_left_out_are_incomplete_not_damaged(tmp_path):
    writer = GradientWriter(tmp_path / "g.h5", 4, (), block_size=2)
    writer.set_checkpoints([CheckpointInfo("a"), CheckpointInfo("b")])
    writer.write("a", 0, np.zeros(4))
    writer.sync()
    killed = shutil.copy(writer.partial_path, tmp_path / "killed.h5")
    with pytest.raises(StoreError, match="incomplete: the gradients of checkpoint 1, examples 0 to 1"):
        open_gradients(killed)
    writer.write("b", 0, np.zeros(4))
    writer.close()
    assert open_gradients(tmp_path / "g.h5").n_checkpoints == 2


def test_an_exception_in_the_body_passes_and_says_where_the_gradients_are(tmp_path):
    writer = GradientWriter(tmp_path / "g.h5", 4, (), block_size=2)
    writer.write("c", 0, np.arange(3.0))
    with pytest.raises(KeyboardInterrupt) as caught, writer:
        raise KeyboardInterrupt
    assert caught.value.__notes__ == [f"The gradients computed so far are kept in {tmp_path / 'g.h5.partial'}."]
    with h5py.File(tmp_path / "g.h5.partial") as file:
        assert file["done"][:].tolist() == [[True, False]]
        assert file["checkpoints/name"].asstr()[:].tolist() == ["c"]
    with pytest.raises(StoreError, match="closed"):
        writer.write("c", 3, np.zeros(1))
    writer.close()


def test_existing_files_are_not_replaced_unless_asked_for(saved, write_archive):
    before = saved.read_bytes()
    with pytest.raises(OutputExistsError, match=r"g\.h5 exists already"):
        GradientWriter(saved, 10, (2, 3))
    assert saved.read_bytes() == before
    partial = saved.with_name("g.h5.partial")
    os.rename(saved, partial)
    with pytest.raises(OutputExistsError, match="left from an earlier run"):
        GradientWriter(saved, 10, (2, 3))
    assert partial.read_bytes() == before
    gradients = write_archive(saved, n=5, overwrite=True)
    assert not partial.exists()
    gradients = write_archive(saved, n=6, overwrite=True)
    with open_gradients(saved) as archive:
        np.testing.assert_array_equal(archive.read(0, 0, 6), gradients[0])


def test_an_archive_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "g.h5"
    writer = GradientWriter(path, 1, ())
    writer.write(0, 0, np.zeros(1))
    path.write_text("theirs")
    with pytest.raises(OutputExistsError, match="meanwhile"):
        writer.close()
    assert path.read_text() == "theirs"
    assert open_gradients(tmp_path / "g.h5.partial").n_examples == 1


def test_a_flipped_byte_is_noticed_wherever_it_is_read(saved):
    clean = open_gradients(saved).read(1, 0, 10)
    with h5py.File(saved) as file:
        offset = file["gradients"].id.get_chunk_info_by_coord((1, 4, 0, 0)).byte_offset
    with open(saved, "r+b") as file:
        file.seek(offset + 50)
        byte = file.read(1)[0]
        file.seek(offset + 50)
        file.write(bytes([byte ^ 1]))
    with open_gradients(saved) as archive:
        message = "the gradients of checkpoint 1, examples 4 to 7, are not what was written"
        for start, stop in [(0, 10), (4, 8), (4, 5), (5, 9)]:
            with pytest.raises(StoreError, match=message) as error:
                archive.read(1, start, stop)
            assert str(saved) in str(error.value)
        np.testing.assert_array_equal(archive.read(1, 0, 4), clean[:4])
        np.testing.assert_array_equal(archive.read(1, 8, 10), clean[8:])


def test_every_truncation_and_foreign_files(saved, tmp_path, make_scores):
    content = saved.read_bytes()
    for length in [0, 7, 8, 100, len(content) // 2, len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(StoreError) as error:
            open_gradients(saved)
        assert "\n" not in str(error.value)
    make_scores().save(tmp_path / "s.h5")
    with pytest.raises(StoreError, match=r"is a score file, not a gradient archive; open it with vogcore\.open_scores"):
        open_gradients(tmp_path / "s.h5")
    with pytest.raises(StoreError, match="no such file"):
        open_gradients(tmp_path / "missing.h5")


@pytest.mark.parametrize(
    "name", ["gradients", "done", "digest", "examples/id", "examples/label", "classes/name", "checkpoints/name"]
)
def test_a_missing_dataset_is_named(saved, name):
    with h5py.File(saved, "a") as file:
        del file[name]
    with pytest.raises(StoreError, match=f"{name} is missing"):
        open_gradients(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.update(format_version="2.0"), "use vogcore .* or newer"),
        (lambda f: f["gradients"].attrs.update(block_size=0), "block size is 0"),
        (lambda f: f["gradients"].attrs.update(block_size=5), r"done has shape \(3, 3\), not \(3, 2\)"),
        (lambda f: f["gradients"].attrs.update(block_size="x"), "not a number"),
        (lambda f: f["gradients"].attrs.update(bfloat16=True), "contradicts its attribute bfloat16"),
        (lambda f: f["gradients"].attrs.update(channel_axis=3), "channel axis is 3"),
        (lambda f: f["gradients"].resize(2, axis=0), "done has shape"),
        (lambda f: replace(f, "gradients", np.zeros(3, "f4")), "gradients has shape"),
        (lambda f: replace(f, "gradients", np.zeros((3, 10), "f8")), "holds float64, not float32 or float16 or uint16"),
        (lambda f: replace(f, "done", np.ones((3, 3), "u1")), "done holds uint8, not bool"),
        (lambda f: replace(f, "examples/label", np.full(10, 3)), "outside of -1 to 2"),
        (lambda f: replace(f, "examples/id", np.arange(9)), r"\(9,\), not \(10\)"),
        (lambda f: replace(f, "checkpoints/step", np.zeros(2, int)), r"\(2,\), not \(3\)"),
        (lambda f: f.create_dataset("logits", (3, 9, 2), "f4"), r"logits has shape \(3, 9, 2\), not \(3, 10, any\)"),
        (lambda f: f.create_dataset("logits", data=np.zeros((3, 10, 2), "f4")), "logits_done is missing"),
        (lambda f: replace(f, "gradients", h5py.SoftLink("/done")), "a link to another place"),
    ],
)
def test_a_damaged_archive_is_refused(saved, change, message):
    with h5py.File(saved, "a") as file:
        change(file)
    with pytest.raises(StoreError, match=message):
        open_gradients(saved)


def replace(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


LIMITED = """
import resource, sys
import numpy as np
from vogcore.errors import StoreError
from vogcore.store import GradientWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
written = 0
try:
    with GradientWriter(sys.argv[1], 100, (1000,), block_size=10) as writer:
        for k in range(10):
            for start in range(0, 100, 10):
                writer.write(k, start, np.full((10, 1000), k + 1.0))
            written = k + 1
except StoreError as error:
    print(error, written)
try:
    writer.write(0, 0, np.zeros((10, 1000)))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_keeps_what_was_written_and_says_so(tmp_path, run_python):
    path = tmp_path / "g.h5"
    result = run_python(LIMITED, path)
    assert result.stderr == ""
    assert result.returncode == 0
    first, second = result.stdout.splitlines()
    expected = f"Cannot write {path}.partial: the file would be larger than the file size limit; what was written"
    assert first.startswith(expected)
    assert "is closed or failed" in second
    written = int(first.split()[-1])
    assert written >= 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["g.h5.partial"]
    assert os.path.getsize(tmp_path / "g.h5.partial") >= written * 400_000
