"""Compressed archives."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from vogcore.errors import SettingsError, StoreError
from vogcore.store import GradientWriter, _compression, _dataset, open_gradients

pytest.importorskip("hdf5plugin", reason="compression needs hdf5plugin")


def values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    rows = np.where(rng.random((2, 50, 64)) < 0.5, 0, rng.normal(size=(2, 50, 64)))
    return rows.astype(np.float32) if dtype != "float16" else rows.astype(np.float16)


@pytest.mark.parametrize("waiting", [1, 64_000_000])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("compression", _compression.COMPRESSIONS)
def test_a_compressed_archive_holds_the_same(tmp_path, monkeypatch, compression, dtype, waiting):
    monkeypatch.setattr(_dataset, "_COMPRESSED_BYTES", waiting)
    gradients = values(dtype)
    sizes = {}
    for name, option in (("plain", None), ("small", compression)):
        with GradientWriter(tmp_path / name, 50, (64,), dtype, block_size=16, compression=option) as writer:
            for k in range(2):
                for start in range(0, 50, 7):
                    writer.write(k, start, gradients[k, start : start + 7])
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["small"] < sizes["plain"]
    with open_gradients(tmp_path / "plain") as plain, open_gradients(tmp_path / "small") as small:
        assert (plain.compression, small.compression) == (None, compression)
        for k in range(2):
            assert small.read(k, 0, 50).tobytes() == plain.read(k, 0, 50).tobytes()
    with h5py.File(tmp_path / "small") as file:
        assert file["gradients"].id.get_create_plist().get_nfilters() == 1
        assert file["gradients"].attrs["compression"] == compression


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    with GradientWriter(tmp_path / "g.h5", 50, (64,), compression="lz4") as writer:
        writer.write(0, 0, values("float32")[0])
    real = _compression.importlib.import_module

    def missing(name: str) -> object:
        if name == "hdf5plugin":
            raise ImportError
        return real(name)

    monkeypatch.setattr(_compression.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"install it with: pip install 'vogcore\[compression\]'"):
        GradientWriter(tmp_path / "h.h5", 50, (64,), compression="lz4")
    with pytest.raises(StoreError, match=r"is compressed; to read it install hdf5plugin"):
        open_gradients(tmp_path / "g.h5")


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="compression='gzip' is not known; choose one of lz4, zstd, or None"):
        GradientWriter(tmp_path / "g.h5", 50, (64,), compression="gzip")
    assert list(tmp_path.iterdir()) == []
