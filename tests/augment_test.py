"""Maps and their inverses, in numpy and jax.numpy alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.data import augment

_TURNS = [
    lambda g: g,
    lambda g: np.rot90(g, 1),
    lambda g: np.rot90(g, 2),
    lambda g: np.rot90(g, 3),
    np.fliplr,
    np.flipud,
    np.transpose,
    lambda g: np.fliplr(np.rot90(g)),
]


def _maps(transform, side, count=64, seed=0):
    rng = np.random.default_rng(seed)
    u = rng.random((count, augment.uniforms_needed(transform, side)))
    return augment.random_maps(transform, u, side)


@pytest.mark.parametrize('kind', range(8))
def test_dihedral_ids(kind):
    grid = np.arange(25, dtype=np.uint8).reshape(1, 25)
    got = augment.apply_dihedral(grid, np.array([[kind]]), 5)
    np.testing.assert_array_equal(got.reshape(5, 5), _TURNS[kind](grid.reshape(5, 5)))


@pytest.mark.parametrize(
    ('transform', 'side'), [('dihedral', 5), ('sudoku', 4), ('sudoku', 6), ('sudoku', 9)]
)
def test_inverse_undoes(transform, side):
    maps = _maps(transform, side)
    rng = np.random.default_rng(1)
    cells = rng.integers(0, side + 2, (len(maps), side * side)).astype(np.uint8)
    moved, same = augment.apply(transform, cells, cells, maps, side)
    np.testing.assert_array_equal(moved, same)
    assert (moved != cells).any(axis=1).sum() > len(maps) // 2
    back = augment.inverse_maps(transform, maps, side)
    np.testing.assert_array_equal(augment.apply(transform, moved, moved, back, side)[0], cells)
    identity = np.tile(augment.identity_map(transform, side), (len(maps), 1))
    np.testing.assert_array_equal(augment.apply(transform, cells, cells, identity, side)[0], cells)


@pytest.mark.parametrize('side', [4, 6, 9])
def test_sudoku_maps_keep_rules(side):
    rows, columns = augment.box_shape(side)
    i, j = np.divmod(np.arange(side * side), side)
    board = (i % rows * columns + i // rows + j) % side
    cells = np.tile(board + 2, (200, 1)).astype(np.uint8)
    moved = augment.apply_sudoku(cells, _maps('sudoku', side, 200), side)
    for units in (i, j, i // rows * rows + j // columns):
        for unit in range(side):
            sorted_unit = np.sort(moved[:, units == unit], axis=1)
            np.testing.assert_array_equal(sorted_unit, np.tile(np.arange(side) + 2, (200, 1)))


def _arc_reference(grid, colours, kind, offset):
    """One grid, slowly."""
    turned = _TURNS[kind](np.asarray(colours, np.uint8)[grid])
    canvas = np.zeros((30, 30), np.uint8)
    (r, c), (h, w) = offset, turned.shape
    canvas[r : r + h, c : c + w] = turned + 2
    if r + h < 30:
        canvas[r + h, c : c + w] = 1
    if c + w < 30:
        canvas[r : r + h, c + w] = 1
    return canvas.reshape(-1)


def _arc_cases(count=60, seed=3):
    rng = np.random.default_rng(seed)
    maps = _maps('arc', 30, count, seed)
    sides = rng.integers(1, 31, (count, 2))
    sides[:4] = [[30, 30], [1, 30], [30, 2], [29, 29]]
    grids = [rng.integers(0, 10, s) for s in sides]
    cells = np.zeros((count, 30, 30), np.uint8)
    for k, grid in enumerate(grids):
        cells[k, : grid.shape[0], : grid.shape[1]] = grid + 2
    extents = np.concatenate([sides, sides], 1).astype(np.uint8)
    offsets = augment.random_offsets(rng.random((count, 2)), extents, maps[:, 0])
    return grids, cells.reshape(count, -1), extents, maps, offsets


def test_arc_placement_against_one_by_one():
    grids, cells, extents, maps, offsets = _arc_cases()
    got = augment.place_arc(cells, extents[:, :2], maps, offsets)
    for k, grid in enumerate(grids):
        np.testing.assert_array_equal(
            got[k], _arc_reference(grid, maps[k, 1:], maps[k, 0], offsets[k])
        )
    assert offsets.max() > 10
    back = augment.inverse_maps('arc', maps, 30)
    turned = [_TURNS[m[0]](m[1:][g]) for m, g in zip(maps, grids, strict=True)]
    for inverse, grid, was in zip(back, turned, grids, strict=True):
        np.testing.assert_array_equal(_TURNS[inverse[0]](inverse[1:][grid]), was)


def test_colour_zero_stays():
    assert (_maps('arc', 30)[:, 1] == 0).all()
    assert (np.sort(_maps('arc', 30)[:, 1:], axis=1) == np.arange(10)).all()


@pytest.mark.parametrize(('transform', 'side'), [('dihedral', 4), ('sudoku', 9), ('arc', 30)])
def test_jax_gives_the_same(transform, side):
    rng = np.random.default_rng(7)
    u = rng.random((8, augment.uniforms_needed(transform, side))).astype(np.float32)
    maps = augment.random_maps(transform, u, side)
    if transform == 'arc':
        _, cells, extents, _, offsets = _arc_cases(8)
        offsets = augment.random_offsets(rng.random((8, 2)), extents, maps[:, 0])
        extra = (extents, offsets)
    else:
        cells, extra = rng.integers(0, 5, (8, side * side)).astype(np.uint8), ()

    @jax.jit
    def on_device(u, cells, *extra):
        drawn = augment.random_maps(transform, u, side, jnp)
        return drawn, augment.apply(transform, cells, cells, drawn, side, *extra, xp=jnp)[1]

    drawn, moved = on_device(u, cells, *extra)
    np.testing.assert_array_equal(drawn, maps)
    np.testing.assert_array_equal(
        moved, augment.apply(transform, cells, cells, maps, side, *extra)[1]
    )
