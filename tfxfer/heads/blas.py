"""BLAS and LAPACK routines that let other threads work.

SciPy's own functions hold Python's lock while they compute, so that fits side by side wait for each
other. Here the same routines of SciPy's library are called through ctypes, which gives the lock
back; they return the same bits.
"""

import ctypes
from collections.abc import Callable
from types import ModuleType

import numpy as np
from scipy.linalg import LinAlgError, cython_blas, cython_lapack

LETTERS = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


def add_products(matrix: np.ndarray, x: np.ndarray, sign: float = 1.0) -> None:
    """Add sign X'X to the lower triangle of a matrix.

    Args:
        matrix: float32 or float64 [d, d], by columns (order "F").
        x: [n, d], of the same dtype.
        sign: 1 or -1.

    Raises:
        ValueError: an array has another shape, order or dtype.
    """
    x = np.ascontiguousarray(x)
    if x.ndim != 2 or x.shape[1] != len(matrix) or x.dtype != matrix.dtype:
        raise ValueError(
            f"Expected rows as wide as the matrix, of its dtype. Received: {x.dtype} {x.shape} and "
            f"{matrix.dtype} {matrix.shape}"
        )
    (count, width), signs = x.shape, np.array([sign, 1], matrix.dtype)
    lower, plain = ctypes.c_char(b"L"), ctypes.c_char(b"N")
    d, n = ctypes.c_int(width), ctypes.c_int(count)
    syrk = routine(cython_blas, "syrk", matrix, 10)
    syrk(
        ctypes.byref(lower),
        ctypes.byref(plain),
        ctypes.byref(d),
        ctypes.byref(n),
        signs[:1].ctypes,
        x.ctypes,
        ctypes.byref(d),
        signs[1:].ctypes,
        matrix.ctypes,
        ctypes.byref(d),
    )


def factorise(matrix: np.ndarray) -> None:
    """Put its Cholesky factor in the place of a matrix's lower triangle, which alone is read.

    Args:
        matrix: float32 or float64 [d, d], by columns (order "F").

    Raises:
        LinAlgError: it is not positive definite.
        ValueError: it has another shape, order or dtype.
    """
    if row := in_place("potrf", matrix):
        raise LinAlgError(f"the matrix is not positive definite: row {row} of {len(matrix)}")


def invert(factor: np.ndarray) -> None:
    """Put the inverse of a matrix in the place of its Cholesky factor; of both the lower triangle.

    Args:
        factor: what `factorise` left.
    """
    in_place("potri", factor)


def in_place(name: str, matrix: np.ndarray) -> int:
    """Call a routine of LAPACK on the lower triangle of a matrix, and return its answer."""
    lower, d, info = ctypes.c_char(b"L"), ctypes.c_int(len(matrix)), ctypes.c_int(0)
    called = routine(cython_lapack, name, matrix, 5)
    called(
        ctypes.byref(lower),
        ctypes.byref(d),
        matrix.ctypes,
        ctypes.byref(d),
        ctypes.byref(info),
    )
    return info.value


def routine(module: ModuleType, name: str, matrix: np.ndarray, count: int) -> Callable[..., None]:
    """Return a routine of BLAS or LAPACK for the dtype of a matrix, which it may overwrite.

    Args:
        module: `cython_blas` or `cython_lapack`.
        name: name of the routine without the letter of the dtype.
        count: how many arguments it takes; all are addresses.

    Raises:
        ValueError: the matrix is not square, or not by columns, or of another dtype.
    """
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    usable = matrix.flags.f_contiguous and matrix.flags.writeable and matrix.dtype in LETTERS
    if not (square and usable):
        raise ValueError(
            "Expected a square matrix of float32 or float64, by columns. Received: "
            f"{matrix.dtype} {matrix.shape}, strides {matrix.strides}"
        )
    capsule = module.__pyx_capi__[LETTERS[matrix.dtype] + name]
    described = ctypes.pythonapi.PyCapsule_GetName
    described.restype, described.argtypes = ctypes.c_char_p, [ctypes.py_object]
    found = ctypes.pythonapi.PyCapsule_GetPointer
    found.restype, found.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    made = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)
    return made(found(capsule, described(capsule)))
