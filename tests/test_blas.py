"""BLAS and LAPACK routines that let other threads work."""

import threading
import time

import numpy as np
import pytest
from scipy import linalg
from scipy.linalg import blas, lapack
from threadpoolctl import threadpool_limits

from tfxfer.heads.blas import add_products, factorise, invert


def products(dtype, width=70, count=90):
    x = np.random.default_rng(0).standard_normal((count, width)).astype(dtype)
    matrix = np.zeros((width, width), dtype, order="F")
    add_products(matrix, x)
    return matrix, x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_give_the_bits_of_scipy(dtype):
    matrix, x = products(dtype)
    letter = {np.float32: "s", np.float64: "d"}[dtype]
    syrk, potrf, potri = (
        getattr(module, letter + name)
        for module, name in ((blas, "syrk"), (lapack, "potrf"), (lapack, "potri"))
    )
    np.testing.assert_array_equal(matrix, syrk(1.0, x.T, lower=1))
    add_products(matrix, x[:20], -1)
    expected = syrk(-1.0, x[:20].T, 1.0, syrk(1.0, x.T, lower=1), lower=1)
    np.testing.assert_array_equal(matrix, expected)
    matrix.flat[:: len(matrix) + 1] += 50
    expected = potrf(matrix, lower=1, clean=0)[0]
    factorise(matrix)
    np.testing.assert_array_equal(matrix, expected)
    invert(matrix)
    np.testing.assert_array_equal(matrix, potri(expected, lower=1)[0])


def test_only_the_lower_triangle_is_read_and_written():
    matrix, _ = products(np.float64)
    matrix.flat[:: len(matrix) + 1] += 1
    upper = np.triu_indices(len(matrix), 1)
    matrix[upper] = 7
    factorise(matrix)
    assert np.all(matrix[upper] == 7)


def test_a_matrix_that_is_not_positive_definite_is_an_error():
    matrix = np.asfortranarray(np.diag([1.0, -1.0, 2.0]))
    with pytest.raises(linalg.LinAlgError, match="row 2 of 3"):
        factorise(matrix)


@pytest.mark.parametrize(
    ("matrix", "x"),
    [
        (np.zeros((3, 4), order="F"), np.zeros((2, 3))),
        (np.zeros((4, 4))[:3, :3], np.zeros((2, 3))),
        (np.zeros((3, 3), order="F"), np.zeros((2, 4))),
        (np.zeros((3, 3), order="F"), np.zeros((2, 3), np.float32)),
        (np.zeros((3, 3), int, order="F"), np.zeros((2, 3), int)),
    ],
    ids=["not square", "not by columns", "other width", "other dtype", "whole numbers"],
)
def test_other_memory_is_never_touched(matrix, x):
    with pytest.raises(ValueError, match="Expected"):
        add_products(matrix, x)


@threadpool_limits.wrap(limits=1, user_api="blas")
def test_other_threads_work_meanwhile():
    matrix, x = products(np.float64, width=1500, count=1500)
    matrix.flat[:: len(matrix) + 1] += 1500
    ended, steps = threading.Event(), 0

    def work():
        for _ in range(3):
            add_products(matrix, x)
            factorise(matrix.copy(order="F"))
        ended.set()

    began = time.monotonic()
    thread = threading.Thread(target=work)
    thread.start()
    while not ended.is_set():
        time.sleep(0.001)
        steps += 1
    thread.join()
    # With Python's lock held, this thread would come to work six times at most.
    assert steps > 12, f"{steps} steps in {time.monotonic() - began:.1f} s"
