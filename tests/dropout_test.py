"""Which entries dropout leaves: their share, and that nothing in their pattern repeats."""

import jax
import numpy as np
import pytest

from hrm_jax.model import layers

ROWS, COLUMNS = 2000, 500


def masks(rate, count=1, shape=(ROWS, COLUMNS)):
    keys = jax.random.split(jax.random.key(7), count)
    return [np.asarray(layers.kept(key, rate, shape)) for key in keys]


@pytest.mark.parametrize('rate', [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_that_of_independent_draws(rate):
    (mask,) = masks(rate)
    assert mask.dtype == bool
    deviation = np.sqrt(rate * (1 - rate))
    for axis, others in ((None, mask.size), (0, ROWS), (1, COLUMNS)):
        shares = np.atleast_1d(mask.mean(axis)) - (1 - rate)
        scaled = shares / (deviation / np.sqrt(others))
        assert np.abs(scaled).max() < 5
        if axis is not None:  # of rows or columns: spread as independent entries are
            assert np.std(scaled) == pytest.approx(1, abs=4 / np.sqrt(2 * scaled.size))


def test_entries_rows_and_masks_are_uncorrelated():
    one, other = ((mask - 0.5) * 2 for mask in masks(0.5, 2))
    pairs = [
        (one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one[::2], one[1::2]),
        (one[:, :250], one[:, 250:]), (one, one[::-1, ::-1]),
    ]  # fmt: skip
    for first, second in pairs:
        product = first * second
        assert abs(product.mean()) < 5 / np.sqrt(product.size)
    between = (one @ one.T)[np.triu_indices(ROWS, 1)] / np.sqrt(COLUMNS)
    assert between.std() == pytest.approx(1, rel=0.02)
    assert np.abs(between).max() < 7  # no two rows are alike, or each other's opposite
    of_columns = (one.T @ one)[np.triu_indices(COLUMNS, 1)] / np.sqrt(ROWS)
    assert of_columns.std() == pytest.approx(1, rel=0.02)
    # Two rows and two columns: what a word for the row and one for the column could leave.
    squares = (one[:-1, :-1] * one[1:, :-1]) * (one[:-1, 1:] * one[1:, 1:])
    assert abs(squares.mean()) < 5 / np.sqrt(squares.size)


def test_the_same_key_gives_the_same_mask_of_any_shape():
    key = jax.random.key(3)
    whole = layers.kept(key, 0.3, (4, 3, 8))
    np.testing.assert_array_equal(whole, jax.jit(layers.kept, static_argnums=(1, 2))(
        key, 0.3, (4, 3, 8)))  # fmt: skip
    assert layers.kept(key, 0.3, (5,)).shape == (5,)
    assert layers.kept(key, 0.3, (5, 1, 1)).shape == (5, 1, 1)
    assert layers.kept(key, 0.5, (1000, 1)).mean() == pytest.approx(0.5, abs=0.08)
