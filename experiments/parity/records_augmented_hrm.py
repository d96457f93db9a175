"""Checks of Augmented HRM: relabelling of digits and hint mixing.

Source: renrua52/hrm-mechanistic-analysis, dataset/sudoku_transforms.py.
"""

import numpy as np

from data_builders import sudoku_hints
from experiments.parity.registry import Fixture, Report, check
from hrm_jax.data import augment


def relabelling(fixture: Fixture, report: Report) -> None:
    """Every token 2.. becomes ((x - 2 + p) mod n) + 2."""
    tokens = fixture.arrays['aug/tokens']
    side = round(tokens.shape[1] ** 0.5)
    shifts = fixture.group('aug/shift')
    maps = augment.cyclic_relabellings(np.array([int(name) for name in shifts]), side)
    for one, (name, want) in zip(maps, shifts.items(), strict=True):
        rows = np.tile(one, (len(tokens), 1))
        report.equal(f'shift {name}', augment.apply('sudoku', tokens, tokens, rows, side)[0], want)
        back = augment.inverse_maps('sudoku', rows, side)
        report.equal(
            f'shift {name} undone', augment.apply('sudoku', want, want, back, side)[0], tokens
        )
    report.equal('shifts', len(shifts) > 0, True)


def hints(fixture: Fixture, report: Report) -> None:
    """The chosen empty cells, numbered row by row, get the digits of the solution."""
    drawn = fixture.group('aug/hint_')
    question, answer = drawn['puzzle'].reshape(1, -1), drawn['solution'].reshape(1, -1)
    selected = drawn['draw_selected']
    blanks = np.flatnonzero(question[0] == 0)
    report.equal('number of hints', len(selected), drawn['draw_num_hints'])
    report.equal('hints leave a blank', 1 <= len(selected) < len(blanks), True)
    chosen = np.zeros(question.shape, bool)
    chosen[0, blanks[selected]] = True
    got = sudoku_hints.filled(question, answer, chosen)
    report.equal('hinted board', got.reshape(drawn['out'].shape), drawn['out'])


@check(arrays=('aug/tokens', 'aug/hint_out'))
def augmented_hrm(fixture: Fixture, report: Report) -> None:
    """Relabelling and hints."""
    relabelling(fixture, report)
    hints(fixture, report)
