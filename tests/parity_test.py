"""The parity command over the small copies of the originals' numbers, and its exit codes."""

from pathlib import Path
import shutil

import numpy as np
import pytest

from experiments.parity import __main__ as parity
from experiments.parity import registry

CORE = Path(__file__).parent / 'fixtures' / 'core'

parity.load_checks()


def _fixtures(folder: Path) -> list[registry.Fixture]:
    return parity.discover(folder)[0]


@pytest.mark.parametrize('fixture', _fixtures(CORE), ids=lambda fixture: fixture.name)
def test_equals_the_original(fixture):
    failed = [row for row in parity.run(fixture) if not row.passed]
    assert not failed, parity.format_table(failed)


def test_every_core_fixture_is_found():
    names = {fixture.name for fixture in _fixtures(CORE)}
    assert {'forward_rope', 'forward_bf16', 'evaluate', 'losses', 'optim', 'train_step',
            'trajectory', 'full_size_shapes'} <= names  # fmt: skip


@pytest.fixture
def small(tmp_path):
    """A folder with one fixture under another name, and a file without a check."""
    for suffix in ('npz', 'json'):
        shutil.copy(CORE / f'losses.{suffix}', tmp_path / f'losses_other.{suffix}')
    (tmp_path / 'NOTES.txt').write_text('nothing to check')
    return tmp_path


def test_passes_and_counts_what_has_no_check(small, capsys):
    assert parity.main([str(small)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == '1 passed, 0 failed, 1 without a check'


def test_fails_when_a_number_is_off(small, capsys):
    arrays = registry.read_npz(small / 'losses_other.npz')
    arrays['stablemax/token_loss'] = arrays['stablemax/token_loss'] * 1.001
    np.savez(small / 'losses_other.npz', **arrays)
    assert parity.main([str(small)]) == 1
    output = capsys.readouterr().out
    assert 'FAIL' in output
    assert output.splitlines()[-1] == '0 passed, 1 failed, 1 without a check'


def test_a_check_that_raises_is_a_failure(small, capsys):
    arrays = registry.read_npz(small / 'losses_other.npz')
    arrays['labels'] = arrays['labels'][:1]
    np.savez(small / 'losses_other.npz', **arrays)
    assert parity.main([str(small)]) == 1


def test_a_damaged_file_fails_alone(small, capsys):
    (small / 'forward_cut.npz').write_bytes((CORE / 'forward_rope.npz').read_bytes()[:999])
    assert parity.main([str(small)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == '1 passed, 1 failed, 1 without a check'


def test_exit_code_2_when_nothing_was_checked(tmp_path, small, capsys):
    assert parity.main([str(small), '--only', 'lossez']) == 2
    assert 'no fixture with a check is called lossez' in capsys.readouterr().err
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert parity.main([str(empty)]) == 2
    assert parity.main([str(tmp_path / 'missing')]) == 2


def test_a_fixture_of_an_unknown_kind_is_listed_as_not_covered(small, capsys):
    np.savez(small / 'novelty.npz', unheard_of=np.zeros(2))
    (small / 'novelty.json').write_text('{}')
    assert parity.main([str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index('not covered:') + 1] == '  novelty'
    assert lines[-1] == '1 passed, 0 failed, 1 not covered, 1 without a check'
