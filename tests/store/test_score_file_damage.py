"""Score files that are missing, foreign, damaged or hostile, and disks that refuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from vogcore import _paths
from vogcore.errors import OutputExistsError, StoreError
from vogcore.store import check_output, open_scores


@pytest.fixture
def saved(make_scores, tmp_path):
    path = tmp_path / "s.h5"
    make_scores().save(path)
    return path


def one_sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_things_that_are_no_score_file(tmp_path, write_archive):
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("not HDF5 at all, though long enough to hold a signature")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.zeros(3)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = 7
    write_archive(tmp_path / "gradients.h5")
    for name, message in [
        ("missing.h5", "there is no such file"),
        (".", "it is not a file"),
        ("empty.h5", "is not an HDF5 file"),
        ("text.h5", "is not an HDF5 file"),
        ("foreign.h5", "is HDF5 but not a score file of vogcore"),
        ("other.h5", "attribute format of / is not a string"),
        ("gradients.h5", "is a gradient archive, not a score file; open it with vogcore.store.open_gradients"),
    ]:
        with pytest.raises(StoreError, match=message) as error:
            open_scores(tmp_path / name)
        assert str(tmp_path) in one_sentence(error)


def test_every_truncation_is_noticed(saved):
    content = saved.read_bytes()
    for length in [8, 9, 100, 1000, len(content) // 2, len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(StoreError) as error:
            open_scores(saved)
        assert str(saved) in one_sentence(error)


def test_flipped_bytes_never_end_in_anything_but_a_store_error(saved):
    content = bytearray(saved.read_bytes())
    rng = np.random.default_rng(0)
    messages = []
    for position in rng.choice(len(content), 150, replace=False):
        damaged = content.copy()
        damaged[position] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            open_scores(saved)
        except StoreError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("version", ["2.0", "10.3"])
def test_a_newer_major_version_is_refused_with_the_version_to_use(saved, version):
    with h5py.File(saved, "a") as file:
        file.attrs["format_version"] = version
        file.attrs["vogcore_version"] = "7.8.9"
    with pytest.raises(StoreError, match=f"has format version {version} .* use vogcore 7.8.9 or newer"):
        open_scores(saved)


def test_an_unknown_minor_version_with_more_in_it_is_read(saved):
    with h5py.File(saved, "a") as file:
        file.attrs["format_version"] = "1.17"
        file["scores/all/vog_squared"] = np.zeros(6)
        file["news"] = 1
    assert len(open_scores(saved)) == 6


REQUIRED = [
    "examples/id", "examples/label", "checkpoints/name", "checkpoints/step", "checkpoints/epoch", "checkpoints/sha256",
    "classes/name", "classes/count", "scores/all/vog", "scores/all/vog_raw", "scores/all/class_mean",
    "scores/late/class_std", "scores/all", "scores",
]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_dataset_is_named(saved, name):
    with h5py.File(saved, "a") as file:
        del file[name]
    with pytest.raises(StoreError, match=name):
        open_scores(saved)


@pytest.mark.parametrize(
    ("node", "attribute"),
    [("/", "settings"), ("/", "created"), ("/", "vogcore_version"), ("/", "format_version"),
     ("scores/all/vog", "direction"), ("scores/all/vog_raw", "direction"), ("scores/all/vog", "normalise"),
     ("scores/all/vog", "checkpoints"), ("companions/loss", "range")],
)  # fmt: skip
def test_a_missing_attribute_is_named(saved, node, attribute):
    with h5py.File(saved, "a") as file:
        del file[node].attrs[attribute]
    with pytest.raises(StoreError, match=f"attribute {attribute} of .*{node} is missing"):
        open_scores(saved)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores/all/vog", np.zeros(5), r"has shape \(5,\), not \(6\)"),
        ("scores/all/vog", np.zeros((6, 1)), r"has shape \(6, 1\)"),
        ("scores/all/vog", np.zeros(6, "f4"), "holds float32, not float64"),
        ("scores/all/class_mean", np.zeros(4), r"has shape \(4,\), not \(3\)"),
        ("examples/label", np.zeros(6), "holds float64, not int64"),
        ("examples/label", np.full(6, 3), "outside of -1 to 2"),
        ("examples/id", ["a"] * 6, "variable-length strings"),
        ("classes/name", np.zeros(3), "not fixed-length strings"),
        ("predictions/class", np.zeros((6, 5), "i4"), r"\(6, 5\), not \(6, 6\)"),
        ("checkpoints/step", np.zeros(2, "i8"), r"\(2,\), not \(6\)"),
        ("scores/all", np.zeros(2), "is not a group"),
        ("companions/loss", np.zeros(6, "c16"), "holds complex128"),
        ("scores/all/vog", h5py.Empty("f8"), "is empty"),
    ],
)
def test_a_wrong_shape_or_type_is_named(saved, name, value, message):
    with h5py.File(saved, "a") as file:
        del file[name]
        file[name] = value
    with pytest.raises(StoreError, match=message):
        open_scores(saved)


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        ("/", "settings", "{", "attribute settings of / cannot be read"),
        ("/", "settings", "[" * 100_000, "attribute settings of / cannot be read"),
        ("/", "settings", "[]", "is not a JSON object"),
        ("/", "warnings", "{}", "is not a JSON array"),
        ("/", "format_version", "one", "its format_version is 'one'"),
        ("scores/all/vog", "direction", "up", "direction of scores/all/vog is 'up'"),
        ("scores/all/vog", "measured_direction", "up", "measured 'up'"),
        ("scores/all/vog", "spearman_loss", "x", "is not a number"),
        ("scores/all/vog", "checkpoints", np.array([0, 6]), "outside of 0 to 5"),
        ("scores/all/vog", "checkpoints", np.zeros((1, 1), int), "not a list of numbers"),
    ],
)
def test_senseless_attributes_are_refused(saved, node, name, value, message):
    with h5py.File(saved, "a") as file:
        file[node].attrs[name] = value
    with pytest.raises(StoreError, match=message):
        open_scores(saved)


def replace(path: Path, build) -> None:
    with h5py.File(path, "a") as file:
        del file["scores/all/vog"]
        build(file, path.parent)


def soft_link(file, folder):
    file["scores/all/vog"] = h5py.SoftLink("/scores/all/vog_raw")


def external_link(file, folder):
    file["scores/all/vog"] = h5py.ExternalLink("elsewhere.h5", "/x")


def external_data(file, folder):
    np.zeros(6).tofile(folder / "raw.bin")
    file.create_dataset("scores/all/vog", (6,), "f8", external=[(str(folder / "raw.bin"), 0, 48)])


def virtual_data(file, folder):
    layout = h5py.VirtualLayout((6,), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (6,))
    file.create_virtual_dataset("scores/all/vog", layout)


@pytest.mark.parametrize(
    ("build", "message"),
    [(soft_link, "a link to another place"), (external_link, "a link to another place"),
     (external_data, "in another file"), (virtual_data, "in another file")],
)  # fmt: skip
def test_values_kept_elsewhere_are_refused(saved, build, message):
    replace(saved, build)
    with pytest.raises(StoreError, match=f"scores/all/vog .*{message}"):
        open_scores(saved)


def test_sizes_that_the_file_cannot_hold_are_refused_before_anything_is_allocated(saved):
    for options in [{}, {"compression": "gzip", "chunks": (1024,)}]:
        with h5py.File(saved, "a") as file:
            del file["examples/id"]
            file.create_dataset("examples/id", (2**45,), "i8", **options)
        with pytest.raises(StoreError, match="examples/id claims 281474976710656 bytes"):
            open_scores(saved)


def test_values_that_were_never_written_are_refused(saved):
    with h5py.File(saved, "a") as file:
        del file["scores/all/vog"]
        file.create_dataset("scores/all/vog", (6,), "f8")
    with pytest.raises(StoreError, match="scores/all/vog was never written in full"):
        open_scores(saved)


def test_compressed_and_big_endian_values_are_read(saved):
    vog = open_scores(saved).vog
    with h5py.File(saved, "a") as file:
        attributes = dict(file["scores/all/vog"].attrs)
        del file["scores/all/vog"]
        file.create_dataset("scores/all/vog", data=vog.astype(">f8"), compression="gzip").attrs.update(attributes)
    back = open_scores(saved).vog
    assert back.dtype == np.dtype("=f8")
    np.testing.assert_array_equal(back, vog)


def test_an_existing_output_is_refused_early_and_when_saving(saved, make_scores):
    before = saved.read_bytes()
    for action in (lambda: check_output(saved, False), lambda: make_scores(seed=1).save(saved)):
        with pytest.raises(OutputExistsError, match="exists already") as error:
            action()
        one_sentence(error)
    assert saved.read_bytes() == before
    check_output(saved, True)
    new = make_scores(seed=1)
    new.save(saved, overwrite=True)
    np.testing.assert_array_equal(open_scores(saved).vog, new.vog)


def test_a_file_that_appears_while_saving_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(_paths.os, "fsync", lambda descriptor: (tmp_path / "s.h5").write_text("theirs"))
    with pytest.raises(OutputExistsError, match="meanwhile"):
        _paths.write_whole(tmp_path / "s.h5", b"ours", overwrite=False)
    assert (tmp_path / "s.h5").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_file_systems_without_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_paths.os, "link", no_links)
    _paths.write_whole(tmp_path / "s.h5", b"ours", overwrite=False)
    assert (tmp_path / "s.h5").read_bytes() == b"ours"
    with pytest.raises(OutputExistsError):
        _paths.write_whole(tmp_path / "s.h5", b"again", overwrite=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_outputs_that_cannot_be_written(tmp_path, make_scores, monkeypatch):
    for path, message in [(tmp_path / "no/s.h5", "does not exist; create it"), (tmp_path, "it is a folder")]:
        for action in (lambda p=path: check_output(p, True), lambda p=path: make_scores().save(p, overwrite=True)):
            with pytest.raises(StoreError, match=message) as error:
                action()
            one_sentence(error)
    with pytest.raises(StoreError, match="the name is too long"):
        make_scores().save(tmp_path / ("x" * 255))
    # The tests may run as a user who may write everywhere.
    monkeypatch.setattr(_paths.os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="is not writable"):
        check_output(tmp_path / "s.h5", False)


def test_an_unreadable_file_is_refused(saved, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StoreError, match="permission is denied"):
        open_scores(saved)


LIMITED = """
import resource, sys
from vogcore.store import Scores, open_scores
from vogcore.errors import StoreError
scores = open_scores(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    scores.save(sys.argv[2], overwrite=True)
except StoreError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(saved, make_scores, run_python):
    old = saved.parent / "old.h5"
    make_scores(seed=1).save(old)
    before = old.read_bytes()
    result = run_python(LIMITED, saved, old)
    assert result.stdout == f"Cannot write {old}: the file would be larger than the file size limit.\n", result.stderr
    assert result.stderr == ""
    assert old.read_bytes() == before
    assert sorted(entry.name for entry in saved.parent.iterdir()) == ["old.h5", "s.h5"]


KILLED = """
import os, sys, time
from vogcore import _paths
from vogcore.store import open_scores
scores = open_scores(sys.argv[1])
def wait(descriptor):
    print("syncing", flush=True)
    time.sleep(60)
_paths.os.fsync = wait
scores.save(sys.argv[2])
"""


def test_a_kill_while_saving_leaves_nothing_under_the_name(saved):
    target = saved.parent / "new.h5"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(saved), str(target)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"syncing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not target.exists()
