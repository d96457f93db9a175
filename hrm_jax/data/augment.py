"""Colour, dihedral, Sudoku and translation maps, written over an array namespace.

``xp`` is ``numpy`` (in the loader) or ``jax.numpy`` (inside a jitted step). A map is a row of uint8
values, so that a list of augmentations is a matrix:

========== ============================ ================================================
transform  columns of a map             meaning
========== ============================ ================================================
none       -                            the puzzle as it is stored
dihedral   1                            dihedral id of a square grid
sudoku     1 + 3 n                      transpose first?, new digit - 1 of digit 1..n,
                                        source row of row 0..n-1, source column likewise
arc        1 + 10                       dihedral id, new colour of colour 0..9
========== ============================ ================================================

Dihedral ids are the original's (dataset/common.py of sapientinc/HRM): 0 identity; 1, 2, 3
counter-clockwise rotations by 90, 180, 270 degrees; 4 left-right flip; 5 up-down flip;
6 transposition; 7 reflection at the anti-diagonal.
"""

import math
from typing import Any

import numpy as np

from hrm_jax.tasks import Arc, box_shape

Array = Any

TRANSFORMS = ('none', 'dihedral', 'sudoku', 'arc')
ARC_SIDE, ARC_COLOURS = Arc.SIDE, Arc.COLOURS
PAD, EOS, FIRST_COLOUR = Arc.PAD, Arc.END, Arc.FIRST_COLOUR

# dihedral_inverse of id k is INVERSE_DIHEDRAL[k].
INVERSE_DIHEDRAL = np.array([0, 3, 2, 1, 4, 5, 6, 7], np.uint8)

# Where cell (r, c) of the result comes from, in a source of h x w cells:
# i = I[0] r + I[1] c + I[2] (h - 1),  j = J[0] r + J[1] c + J[2] (w - 1).
_SOURCE_ROW = np.array(
    [[1, 0, 0], [0, 1, 0], [-1, 0, 1], [0, -1, 1], [1, 0, 0], [-1, 0, 1], [0, 1, 0], [0, -1, 1]],
    np.int32,
)
_SOURCE_COLUMN = np.array(
    [[0, 1, 0], [-1, 0, 1], [0, -1, 1], [1, 0, 0], [0, -1, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 1]],
    np.int32,
)
# Ids whose result has the source's height as its width.
SWAPS_SIDES = np.array([0, 1, 0, 1, 0, 0, 1, 1], bool)


def map_width(transform: str, side: int) -> int:
    """Returns the number of uint8 columns of a map of ``transform`` on a grid of ``side``."""
    return {'none': 0, 'dihedral': 1, 'sudoku': 1 + 3 * side, 'arc': 1 + ARC_COLOURS}[transform]


def identity_map(transform: str, side: int) -> np.ndarray:
    """Returns the uint8 map that changes nothing."""
    if transform == 'sudoku':
        return np.concatenate([[0], np.tile(np.arange(side), 3)]).astype(np.uint8)
    if transform == 'arc':
        return np.concatenate([[0], np.arange(ARC_COLOURS)]).astype(np.uint8)
    return np.zeros(map_width(transform, side), np.uint8)


def cyclic_relabellings(shifts_N: np.ndarray, side: int) -> np.ndarray:
    """Returns Sudoku maps [N, M] that only turn digit d into 1 + (d - 1 + shift) mod ``side``.

    Source: dataset/sudoku_transforms.py of renrua52/hrm-mechanistic-analysis.
    """
    maps = np.tile(identity_map('sudoku', side), (len(shifts_N), 1))
    maps[:, 1 : 1 + side] = (np.arange(side) + np.asarray(shifts_N)[:, None]) % side
    return maps


def inverse_maps(transform: str, maps: np.ndarray, side: int) -> np.ndarray:
    """Returns the maps that undo ``maps`` [..., M], as numpy uint8.

    A Sudoku map with a transposition is undone by one: rows and columns change roles.
    """
    maps = np.asarray(maps)
    if transform == 'none':
        return maps
    if transform == 'dihedral':
        return INVERSE_DIHEDRAL[maps]
    if transform == 'arc':
        colours = np.argsort(maps[..., 1:], axis=-1)
        return np.concatenate([INVERSE_DIHEDRAL[maps[..., :1]], colours], -1).astype(np.uint8)
    flip = maps[..., :1]
    digits, rows, columns = (
        np.argsort(maps[..., 1 + k * side : 1 + (k + 1) * side], axis=-1) for k in range(3)
    )
    first, second = np.where(flip, columns, rows), np.where(flip, rows, columns)
    return np.concatenate([flip, digits, first, second], -1).astype(np.uint8)


def uniforms_needed(transform: str, side: int) -> int:
    """Returns how many uniform numbers ``random_maps`` wants for one map."""
    if transform == 'sudoku':
        box_rows, box_columns = box_shape(side)
        return 1 + 3 * side + side // box_rows + side // box_columns
    return {'none': 0, 'dihedral': 1, 'arc': ARC_COLOURS}[transform]


def random_maps(transform: str, uniforms_BK: Array, side: int, xp: Any = np) -> Array:
    """Turns uniform numbers in [0, 1) into maps with the builders' distribution.

    Args:
      transform: one of ``TRANSFORMS``.
      uniforms_BK: float [B, ``uniforms_needed(transform, side)``].
      side: rows of the grid (digits of a Sudoku).
      xp: array namespace.

    Returns:
      uint8 [B, ``map_width(transform, side)``].
    """
    u = uniforms_BK
    if transform == 'none':
        return xp.zeros((u.shape[0], 0), xp.uint8)
    if transform in ('dihedral', 'arc'):
        ids = (u[:, :1] * 8).astype(xp.uint8)
        if transform == 'dihedral':
            return ids
        # Colour 0 is ARC's background and stays what it is.
        colours = xp.argsort(u[:, 1:], axis=1).astype(xp.uint8) + xp.uint8(1)
        return xp.concatenate([ids, xp.zeros_like(ids), colours], axis=1)
    box_rows, box_columns = box_shape(side)
    flip = u[:, :1] < 0.5
    if box_rows != box_columns:  # a transposed 2x3 box is not a box
        flip = xp.zeros_like(flip)
    digits = xp.argsort(u[:, 1 : 1 + side], axis=1)
    rest = u[:, 1 + side :]
    bands = side // box_rows
    rows = _grouped_permutation(rest[:, : side + bands], bands, box_rows, xp)
    columns = _grouped_permutation(rest[:, side + bands :], side // box_columns, box_columns, xp)
    return xp.concatenate([flip, digits, rows, columns], axis=1).astype(xp.uint8)


def _grouped_permutation(u: Array, groups: int, size: int, xp: Any) -> Array:
    """Permutes groups of lines and the lines within each group: [B, groups * size]."""
    order = xp.argsort(u[:, :groups], axis=1)
    within = xp.argsort(u[:, groups:].reshape(-1, groups, size), axis=2)
    return (order[:, :, None] * size + within).reshape(-1, groups * size)


def apply_dihedral(cells_BS: Array, maps_B1: Array, side: int, xp: Any = np) -> Array:
    """Rotates or reflects square grids stored row by row; dtype and shape stay."""
    r, c = np.divmod(np.arange(side * side), side)
    last = side - 1
    i = _SOURCE_ROW @ np.stack([r, c, np.full_like(r, last)])
    j = _SOURCE_COLUMN @ np.stack([r, c, np.full_like(r, last)])
    table = xp.asarray((i * side + j).astype(np.int32))
    return xp.take_along_axis(cells_BS, table[maps_B1[:, 0]], axis=1)


def apply_sudoku(cells_BS: Array, maps_BM: Array, side: int, xp: Any = np) -> Array:
    """Relabels digits and moves bands, stacks, rows and columns.

    Cells are tokens: 0 padding, 1 blank, 2.. digits; the first two stay. Cell (i, j) of the
    result is the relabelled cell (rows[i], columns[j]) of the board, transposed before where
    the map states it (shuffle_sudoku of the original's dataset/build_sudoku_dataset.py).
    """
    maps = maps_BM.astype(xp.int32)
    flip = maps[:, :1, None] == 1
    digits = maps[:, 1 : 1 + side] + 2
    rows = maps[:, 1 + side : 1 + 2 * side, None]
    columns = maps[:, None, 1 + 2 * side :]
    source = xp.where(flip, columns * side + rows, rows * side + columns)
    moved = xp.take_along_axis(cells_BS, source.reshape(-1, side * side), axis=1)
    fixed = xp.broadcast_to(xp.arange(2, dtype=digits.dtype), (digits.shape[0], 2))
    table = xp.concatenate([fixed, digits], axis=1).astype(cells_BS.dtype)
    return xp.take_along_axis(table, moved.astype(xp.int32), axis=1)


def random_relabellings(uniforms_BK: Array, side: int, form: str, xp: Any = np) -> Array:
    """Draws a permutation of the digits for each row: a table from token to token, [B, side + 2].

    Args:
      uniforms_BK: [B, side].
      side: digits of a Sudoku.
      form: ``correct`` permutes the digits, tokens 2 to side + 1. ``sic`` permutes the tokens 1 to
        side, as jvdillon/sic code/experiment.py (augment_sudoku) does on boards where 1 is the
        blank: the blank changes places with digits, and the last digit never moves. One
        table serves question and answer, so the puzzle stays a puzzle.
      xp: array namespace.
    """
    first = {'correct': 2, 'sic': 1}[form]
    digits = xp.argsort(uniforms_BK, axis=1).astype(xp.int32) + first
    rows, tokens = digits.shape[0], xp.arange(side + 2, dtype=xp.int32)
    before = xp.broadcast_to(tokens[:first], (rows, first))
    after = xp.broadcast_to(tokens[side + first :], (rows, 2 - first))
    return xp.concatenate([before, digits, after], axis=1)


def relabel_and_turn(
    cells_BS: Array, tables_BV: Array, dihedral_B1: Array, side: int, xp: Any = np
) -> Array:
    """Relabels tokens by a table for each row, then turns the boards; dtype and shape stay."""
    tables = tables_BV.astype(cells_BS.dtype)
    relabelled = xp.take_along_axis(tables, cells_BS.astype(xp.int32), axis=1)
    return apply_dihedral(relabelled, dihedral_B1, side, xp)


def mapped_extents(extents_B4: Array, dihedral_B: Array, xp: Any = np) -> Array:
    """Sides (h_in, w_in, h_out, w_out) after the dihedral map, int32 [B, 4]."""
    extents = extents_B4.astype(xp.int32)
    swap = xp.asarray(SWAPS_SIDES)[dihedral_B][:, None]
    return xp.where(swap, extents[:, xp.asarray([1, 0, 3, 2])], extents)


def random_offsets(
    uniforms_B2: Array, extents_B4: Array, dihedral_B: Array, side: int = ARC_SIDE, xp: Any = np
) -> Array:
    """Draws top-left corners at which input and label both still fit, int32 [B, 2]."""
    sides = mapped_extents(extents_B4, dihedral_B, xp)
    room = side - xp.maximum(sides[:, :2], sides[:, 2:])
    return xp.minimum((uniforms_B2 * (room + 1)).astype(xp.int32), room)


def place_arc(
    cells_BS: Array,
    extents_B2: Array,
    maps_BM: Array,
    offsets_B2: Array,
    xp: Any = np,
) -> Array:
    """Recolours, turns and places ARC grids, and marks their ends.

    Args:
      cells_BS: [B, S] tokens (2 + colour) in the top left corner of a square canvas of S cells
        (900 in the originals).
      extents_B2: [B, 2] height and width of the stored grids.
      maps_BM: uint8 [B, 11].
      offsets_B2: [B, 2] row and column of the top left corner of the result.
      xp: array namespace.

    Returns:
      [B, S] of the same dtype: the grid, EOS in the row below it (the grid's width) and in
      the column right of it (the grid's height) where the canvas has room, padding elsewhere
      (np_grid_to_seq_translational_augment of the original's dataset/build_arc_dataset.py).
    """
    batch, side = cells_BS.shape[0], math.isqrt(cells_BS.shape[1])
    dihedral = maps_BM[:, 0]
    # Behind the cells of the canvas two more hold what is outside the grid.
    outside, end = side * side, side * side + 1
    row_terms = xp.asarray(_SOURCE_ROW)[dihedral]
    column_terms = xp.asarray(_SOURCE_COLUMN)[dihedral]
    extents = extents_B2.astype(xp.int32)
    swap = xp.asarray(SWAPS_SIDES)[dihedral][:, None]
    sides = xp.where(swap, extents[:, ::-1], extents)
    offsets = offsets_B2.astype(xp.int32)
    line = xp.arange(side, dtype=xp.int32)[None, :]
    r, c = line - offsets[:, :1], line - offsets[:, 1:]
    row_in = (r >= 0) & (r < sides[:, :1])
    column_in = (c >= 0) & (c < sides[:, 1:])
    row_end, column_end = r == sides[:, :1], c == sides[:, 1:]

    # The source cell is a sum of a term of the row and a term of the column.
    weights = side * row_terms + column_terms
    start = side * row_terms[:, 2] * (extents[:, 0] - 1) + column_terms[:, 2] * (extents[:, 1] - 1)
    from_row = (weights[:, :1] * r + start[:, None]).astype(xp.int16)
    from_column = (weights[:, 1:2] * c).astype(xp.int16)
    inside = row_in[:, :, None] & column_in[:, None, :]
    ends = (row_end[:, :, None] & column_in[:, None, :]) | (
        row_in[:, :, None] & column_end[:, None, :]
    )
    source = xp.where(
        inside,
        from_row[:, :, None] + from_column[:, None, :],
        xp.where(ends, xp.int16(end), xp.int16(outside)),
    ).reshape(batch, side * side)

    colours = maps_BM[:, 1:].astype(cells_BS.dtype) + xp.asarray(FIRST_COLOUR, cells_BS.dtype)
    fixed = xp.broadcast_to(xp.arange(2, dtype=cells_BS.dtype), (batch, 2))
    table = xp.concatenate([fixed, colours], axis=1)
    padded = xp.concatenate([cells_BS, fixed], axis=1)  # the two: PAD and EOS
    moved = xp.take_along_axis(padded, source.astype(xp.int32), axis=1)
    return xp.take_along_axis(table, moved.astype(xp.int32), axis=1)


def apply(
    transform: str,
    inputs_BS: Array,
    labels_BS: Array,
    maps_BM: Array,
    side: int,
    extents_B4: Array | None = None,
    offsets_B2: Array | None = None,
    xp: Any = np,
) -> tuple[Array, Array]:
    """Applies one map per row to question and answer alike.

    Args:
      transform: one of ``TRANSFORMS``.
      inputs_BS: stored tokens of the questions.
      labels_BS: stored tokens of the answers.
      maps_BM: uint8 [B, M]; see the module's table.
      side: rows of the grid.
      extents_B4: sides of the stored ARC grids (h_in, w_in, h_out, w_out); ARC only.
      offsets_B2: where the ARC grids go; ARC only.
      xp: array namespace.
    """
    if transform == 'none':
        return inputs_BS, labels_BS
    if transform == 'arc':
        assert extents_B4 is not None  # ``puzzles.realise`` gives both
        assert offsets_B2 is not None
        return (
            place_arc(inputs_BS, extents_B4[:, :2], maps_BM, offsets_B2, xp),
            place_arc(labels_BS, extents_B4[:, 2:], maps_BM, offsets_B2, xp),
        )
    function = {'dihedral': apply_dihedral, 'sudoku': apply_sudoku}[transform]
    return function(inputs_BS, maps_BM, side, xp), function(labels_BS, maps_BM, side, xp)
