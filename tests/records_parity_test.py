"""Recipes of the record holders against small copies of their originals' numbers."""

import pathlib

import pytest

from experiments.parity import __main__ as parity
from experiments.parity import registry

COPIES = pathlib.Path(__file__).resolve().parent / 'fixtures' / 'records'

parity.load_checks()


def _fixtures():
    return parity.discover(COPIES)[0]


@pytest.mark.parametrize('fixture', _fixtures(), ids=lambda fixture: fixture.name)
def test_equals_the_original(fixture):
    failed = [row for row in parity.run(fixture) if not row.passed]
    assert not failed, parity.format_table(failed)


def test_every_copy_has_a_check_and_its_name_does_not_matter(tmp_path):
    stems = {path.stem for path in COPIES.glob('*.npz')}
    assert {fixture.name for fixture in _fixtures()} == stems
    for number, stem in enumerate(sorted(stems)):
        for suffix in ('npz', 'json'):
            target = tmp_path / f'unnamed{number}.{suffix}'
            target.write_bytes((COPIES / f'{stem}.{suffix}').read_bytes())
    for fixture in parity.discover(tmp_path)[0]:
        number = int(fixture.name.removeprefix('unnamed'))
        original = registry.Fixture(sorted(stems)[number], COPIES, ())
        assert registry.fitting(fixture) == registry.fitting(original)
    assert len(parity.discover(tmp_path)[0]) == len(stems)
