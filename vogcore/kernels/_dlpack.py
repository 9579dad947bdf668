"""Arrays of other libraries through DLPack, without a copy and without importing those libraries.

The structures are those of dlpack.h, versions 0 and 1 (https://dmlc.github.io/dlpack/latest/c_api.html).
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["CPU", "CUDA", "CUDA_HOST", "CUDA_MANAGED", "Borrowed", "borrow"]

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13

_UNSIGNED, _FLOAT, _BFLOAT = 1, 2, 4
_INT = 0
_READ_ONLY = 1


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_get_pointer.restype = ctypes.c_void_p


class Borrowed:
    """Memory of another library's array, as NumPy's or CUDA's array interface; bfloat16 as its uint16 bits.

    Attributes:
        is_bfloat16: whether the bits are those of bfloat16.
    """

    def __init__(self, capsule: Any, interface: dict[str, Any], on_device: bool, is_bfloat16: bool) -> None:
        # The capsule keeps its name, so that its own destructor gives the memory back when this object goes.
        self._capsule = capsule
        self.is_bfloat16 = is_bfloat16
        if on_device:
            self.__cuda_array_interface__ = interface
        else:
            self.__array_interface__ = interface


def borrow(array: Any, stream: int | None) -> Borrowed:
    """A view of ``array`` through its ``__dlpack__``.

    Args:
        array: anything with ``__dlpack__``, in memory of the host or of a CUDA device.
        stream: for a device, the CUDA stream (1 for the legacy default stream) on which the values must be ready.

    Raises:
        BufferError: the type has no counterpart in NumPy, or the library refuses.
    """
    capsule = _capsule(array, stream)
    if _is_valid(capsule, b"dltensor_versioned"):
        managed = ctypes.cast(_get_pointer(capsule, b"dltensor_versioned"), ctypes.POINTER(_ManagedVersioned)).contents
        if managed.major > 1:
            raise BufferError(f"it comes as DLPack {managed.major}.{managed.minor}, which is too new")
        tensor, read_only = managed.tensor, bool(managed.flags & _READ_ONLY)
    elif _is_valid(capsule, b"dltensor"):
        tensor = ctypes.cast(_get_pointer(capsule, b"dltensor"), ctypes.POINTER(_Managed)).contents.tensor
        read_only = False
    else:
        raise BufferError("its DLPack capsule is empty or has been used before")
    code, bits, lanes = tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes
    kind = {_FLOAT: "f", _BFLOAT: "u", _INT: "i", _UNSIGNED: "u"}.get(code)
    if kind is None or lanes != 1 or bits not in (8, 16, 32, 64):
        raise BufferError(f"its DLPack type {code} of {bits} bits is none that NumPy has")
    itemsize = bits // 8
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(itemsize * step for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    interface = {
        "shape": shape,
        "typestr": f"<{kind}{itemsize}",
        "data": ((tensor.data or 0) + tensor.byte_offset, read_only),
        "strides": strides,
        "version": 3,
    }
    return Borrowed(capsule, interface, tensor.device.type in (CUDA, CUDA_MANAGED), code == _BFLOAT)


def _capsule(array: Any, stream: int | None) -> Any:
    options: dict[str, Any] = {} if stream is None else {"stream": stream}
    try:
        return array.__dlpack__(max_version=(1, 0), **options)
    except TypeError:  # from before versions
        return array.__dlpack__(**options)
