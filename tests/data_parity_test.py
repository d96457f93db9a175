"""The data checks of the parity command over small copies of the originals' output."""

import json
from pathlib import Path
import shutil

import numpy as np
import pytest

from experiments.parity import __main__ as parity

pytest.importorskip('tqdm')
DATA = Path(__file__).parent / 'fixtures' / 'data'
# Comparisons of fixtures whose files a check passes over where they are missing.
ROWS = {'arc_eval': 16, 'lisp_metrics': 25, 'mini_lisp': 4}

parity.load_checks()


@pytest.mark.parametrize('fixture', parity.discover(DATA)[0], ids=lambda fixture: fixture.name)
def test_equals_the_original(fixture):
    rows = parity.run(fixture)
    failed = [row for row in rows if not row.passed]
    assert not failed, parity.format_table(failed)
    assert len(rows) == ROWS.get(fixture.name, len(rows)) > 0


def test_every_kind_is_found():
    names = {fixture.name for fixture in parity.discover(DATA)[0]}
    assert names == {'arc', 'krychu_boards', 'maze', 'puzzle_dataset', 'sudoku', *ROWS}


def test_the_lisp_cases_are_many():
    assert len(json.loads((DATA / 'mini_lisp' / 'cases.json').read_text())['cases']) > 100


def test_a_changed_cell_is_noticed(tmp_path):
    shutil.copytree(DATA / 'sudoku', tmp_path / 'sudoku')
    file = tmp_path / 'sudoku' / 'expected_1.npz'
    arrays = dict(np.load(file))
    arrays['train__all__labels'][7, 7] += 1
    np.savez(file, **arrays)
    (fixture,) = parity.discover(tmp_path)[0]
    failed = [row for row in parity.run(fixture) if not row.passed]
    assert [row.what for row in failed] == ['case 1 train labels']
