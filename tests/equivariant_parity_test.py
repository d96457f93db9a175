"""SE-RRM, digit fields and LDT against small copies of the originals' numbers."""

import pathlib

import pytest

from experiments.parity import __main__ as parity

COPIES = pathlib.Path(__file__).resolve().parent / 'fixtures' / 'equivariant'

parity.load_checks()
FIXTURES = {fixture.name: fixture for fixture in parity.discover(COPIES)[0]}


@pytest.mark.parametrize('name', sorted(FIXTURES))
def test_equals_the_original(name):
    failed = [row for row in parity.run(FIXTURES[name]) if not row.passed]
    assert not failed, parity.format_table(failed)


def test_every_kind_is_there():
    assert set(FIXTURES) >= {
        'serrm_sudoku_rope2d', 'serrm_arc_puzzle', 'serrm_maze_noneq', 'serrm_dropout',
        'dft_attn_attn', 'dft_single_state', 'ldt_forward', 'ldt_pool', 'ldt_solve',
    }  # fmt: skip
