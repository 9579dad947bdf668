"""Files of every released format version can still be read; the golden files are never written again."""

from __future__ import annotations

import hashlib
import re
import shutil

import h5py
import numpy as np
import pytest

from vogcore.store import GradientWriter, open_gradients, open_scores

SHA256 = {
    "scores/v1/full.h5": "ff5fc40218779827c5910f5384a34ed213eb23d044ca61e0486257c26c1cdbf5",
    "scores/v1/minimal.h5": "39b20509707b58a664fb807fbd8b48a13941c3f14890b07e338557e0263e5183",
    "scores/v1/maps.h5": "1f3d2a9381fe02117f715dc28ead6850923796c79405ff4487c99ddf5aad8f2d",
    "archive/v1/float32.h5": "18a41c2307fc1e920ced41ff8114db338e126d2d355d3ce326a039d35c7515dc",
    "archive/v1/float16.h5": "2a4b32bb4b9227f1b8231a0ab00b6872210a97e05459b6767e4f79f2499e3199",
    "archive/v1/bfloat16.h5": "e188dc4ae6a8c9ae64bdd7757cf05702769a0207eb732efe1631a15dc5f9f1e9",
    "archive/v1/xxh3.h5": "ca704b571d36f6c0038ed354e3d04179e6b99b5574aab3a17ca422ef70e271ee",
}


@pytest.mark.parametrize("name", SHA256)
def test_golden_files_are_as_they_were_written(golden, name):
    assert hashlib.sha256((golden.folder / name).read_bytes()).hexdigest() == SHA256[name]


def test_the_script_refuses_to_write_them_again(golden):
    with pytest.raises(SystemExit, match="never written again"):
        golden.main()


def test_golden_scores(golden, assert_equal):
    full = open_scores(golden.folder / "scores/v1/full.h5")
    assert full.vog_raw.tolist() == [0.5, 0.25, 1.5, 0.125, 2.0, 0.75]
    expected = golden.full_scores()
    # A score without a recorded direction is read with the default one.
    for stage in expected.stages.values():
        for score in ("vog", "vog_raw"):
            stage.directions.setdefault(score, stage.direction(score))
    assert_equal(full, expected)
    assert_equal(full.maps, None)
    mapped = open_scores(golden.folder / "scores/v1/maps.h5")
    assert mapped.maps.index.tolist() == [4, 1]
    assert mapped.maps.of(1).tolist() == [[0.75, 0.875, 1.0], [1.125, 1.25, 1.375]]
    expected.maps = golden.mapped_scores().maps
    assert_equal(mapped, expected)
    minimal = open_scores(golden.folder / "scores/v1/minimal.h5")
    assert minimal.ids.tolist() == [10, 20, -30]
    assert minimal.classes == []
    assert minimal.hardest(2).tolist() == [0, 2]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "xxh3"])
def test_golden_archives(golden, name):
    dtype = "bfloat16" if name == "xxh3" else name
    with open_gradients(golden.folder / f"archive/v1/{name}.h5") as archive:
        assert (archive.n_checkpoints, archive.n_examples, archive.shape) == (3, 6, (2, 2, 3))
        assert (archive.dtype, archive.channel_axis, archive.block_size) == (dtype, 3, 4)
        assert archive.checkpoints == golden.checkpoints()
        assert archive.settings == {"of": "logit"}
        assert archive.has_logits == (dtype == "bfloat16")
        if dtype == "float16":
            assert archive.labels is None
            assert archive.ids.tolist() == list(range(6))
        else:
            assert archive.labels.tolist() == [0, 1, 0, 1, 0, -1]
            assert archive.ids.tolist() == ["a", "bb", "ccc", "é", "", "图"]
            assert archive.classes == ["cat", "dog"]
        for k, expected in enumerate(golden.gradients(np.float32)):
            block = archive.read(k, 0, 6)
            if dtype == "bfloat16":
                np.testing.assert_array_equal(archive.read_logits(k, 0, 6), golden.logits()[k])
                block = (block.astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(block, expected)


def test_an_archive_that_was_begun_with_other_digests_is_gone_on_with(golden, tmp_path):
    partial = shutil.copy(golden.folder / "archive/v1/float32.h5", tmp_path / "g.h5.partial")
    with h5py.File(partial, "r+") as file:
        assert "digest" not in file["gradients"].attrs
        digest = int(file["digest"][2, 1])
        file["done"][2, 1], file["digest"][2, 1] = False, 0
        file["gradients"][2, 4:] = 0
    writer = GradientWriter(
        tmp_path / "g.h5", 6, (2, 2, 3), labels=[0, 1, 0, 1, 0, -1], classes=["cat", "dog"], channel_axis=3,
        block_size=4, ids=["a", "bb", "ccc", "é", "", "图"], settings={"of": "logit"}, resume=True,
    )  # fmt: skip
    with writer:
        assert [writer.missing(k) for k in range(3)] == [[], [], [(4, 6)]]
        writer.write(2, 4, golden.gradients(np.float32)[2, 4:])
    with h5py.File(tmp_path / "g.h5") as file:
        assert int(file["digest"][2, 1]) == digest
    with open_gradients(tmp_path / "g.h5") as archive:
        np.testing.assert_array_equal(archive.read(2, 0, 6), golden.gradients(np.float32)[2])


def names_in(path) -> set[str]:
    """Every dataset and attribute of a file, with names of users' own replaced."""
    found = set()

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found.add(name)
        found.update(f"{name}@{key}" for key in node.attrs)

    with h5py.File(path) as file:
        found.update(f"@{key}" for key in file.attrs)
        file.visititems(note)
    return found


def test_everything_in_a_file_is_documented_and_all_that_is_asked_for_is_there(golden):
    document = (golden.folder.parents[1] / "docs/file-formats.md").read_text(encoding="utf-8")
    found = names_in(golden.folder / "scores/v1/maps.h5")
    words = {re.sub(r"[^\w]", "", word) for word in re.split(r"[\s/`{},]+", document)}
    for name in found:
        path, _, attribute = name.partition("@")
        if attribute and not path.startswith("companions"):
            assert attribute in words, name
        elif not attribute and not path.startswith("companions"):
            assert path.split("/")[-1] in words, name
    asked = {
        "scores/all/vog", "scores/all/vog_raw", "scores/late/vog", "scores/all/class_mean", "scores/all/class_std",
        "examples/id", "examples/label", "classes/count", "checkpoints/name", "checkpoints/sha256", "@settings",
        "predictions/class", "predictions/label_probability", "maps/index", "maps/vog", "@vogcore_version",
    }  # fmt: skip
    assert asked <= found


def test_the_examples_of_the_description_run_without_vogcore(golden, tmp_path, run_python):
    document = (golden.folder.parents[1] / "docs/file-formats.md").read_text(encoding="utf-8")
    examples = [part.split("```")[0] for part in re.split(r"```python[^\n]*\n", document)[1:]]
    assert len(examples) == 2
    shutil.copy(golden.folder / "scores/v1/maps.h5", tmp_path / "scores.h5")
    shutil.copy(golden.folder / "archive/v1/xxh3.h5", tmp_path / "gradients.h5")
    outputs = []
    for example in examples:
        assert "vogcore." not in example.replace('"vogcore.scores"', "").replace('"vogcore.gradients"', "")
        result = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{example}\nprint(locals().get('block'))")
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert outputs[0].startswith("lower is harder ['a' 'é' 'ccc' 'bb' '' '图']")
    assert "-3.75 " in outputs[1]
