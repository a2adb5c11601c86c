"""What quantizers share: nearest codes, straight-through gradients, and the frequency of codes."""

import jax
import numpy as np

from t2i_jax.models import codebooks


def test_perplexity_and_usage():
    """Of the frequencies of two batches, the first with weight 0.99.

    A code with less than a hundredth of the mean frequency is not in use.
    """
    first, second = np.zeros((4, 2, 2), int), np.arange(16).reshape(4, 2, 2) % 2 + 1
    update = jax.jit(lambda extra, codes: codebooks.update_frequency(extra, codes, 8, None))
    extra, metrics = update(codebooks.zero_frequency(8), first)
    np.testing.assert_allclose(
        [metrics["perplexity"][0], metrics["usage"][0]], [1, 1 / 8], rtol=1e-6
    )
    extra, metrics = update(extra, second)
    p = np.array([0.99, 0.5, 0.5]) / 1.99
    np.testing.assert_allclose(
        metrics["perplexity"], np.full(4, np.exp(-(p * np.log(p)).sum())), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["usage"], np.full(4, 3 / 8))
    for _ in range(700):
        extra, metrics = update(extra, second)
    np.testing.assert_allclose(
        [metrics["perplexity"][0], metrics["usage"][0]], [2, 2 / 8], rtol=1e-2
    )


def test_of_equally_near_codes_the_first_is_taken():
    codebook = np.array([[1.0, 0], [0, 1], [1, 0]], np.float32)
    np.testing.assert_array_equal(
        codebooks.nearest(np.array([[2.0, 0], [0, 3], [1, 1]]), codebook), [0, 1, 0]
    )


def test_distances_within_the_tolerance_are_equal():
    codebook, z = np.array([[1.1], [1.0], [-1.0]], np.float32), np.array([[0.9]])
    for tolerance, code in ((0.0, 1), (0.02, 1), (0.04, 0), (4.0, 0)):  # 0.04 and 0.01 away
        assert codebooks.nearest(z, codebook, tolerance) == code


def test_straight_through():
    z, vectors = np.array([1.0, 2.0], np.float32), np.array([3.0, -1.0], np.float32)
    np.testing.assert_allclose(codebooks.straight_through(z, vectors), vectors)
    by_z, by_vectors = jax.grad(lambda *x: codebooks.straight_through(*x).sum(), (0, 1))(z, vectors)
    np.testing.assert_array_equal(by_z, [1, 1])
    np.testing.assert_array_equal(by_vectors, [0, 0])


def test_unit_length():
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(codebooks.unit_length(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
