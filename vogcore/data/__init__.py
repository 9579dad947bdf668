"""Where examples and labels come from: arrays, ``.npy``, ``.npz`` and HDF5 files, or a source of your own.

:func:`open_source` turns any of them into an :class:`~vogcore._types.ExampleSource`, which is read in runs of
examples; :class:`Preprocess` says how stored values become the model's input.
"""

# Imported eagerly, on purpose: a lazily imported submodule `open_source` would replace the function of the same name in
# this namespace. These modules need NumPy alone; h5py is imported when the first HDF5 file is opened.
from vogcore.data.open_source import open_source
from vogcore.data.preprocess import Preprocess
from vogcore.data.source import ArraySource

__all__ = ["ArraySource", "Preprocess", "open_source"]
