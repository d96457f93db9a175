"""TRM, its ablations, SRU, SRU++, path finding against small copies of their originals' numbers."""

import pathlib

import pytest

from experiments.parity import __main__ as parity

HERE = pathlib.Path(__file__).resolve().parent
COPIES = HERE / 'fixtures' / 'variants'

parity.load_checks()


def _by_name(folder):
    return {fixture.name: fixture for fixture in parity.discover(folder)[0]}


@pytest.mark.parametrize('name', sorted(_by_name(COPIES)))
def test_equals_the_original(name):
    rows = parity.run(_by_name(COPIES)[name])
    failed = [row for row in rows if not row.passed]
    assert not failed, parity.format_table(failed)


def test_every_kind_is_there():
    assert set(_by_name(COPIES)) >= {
        'trm_att_learned_len0', 'trm_mlp_t', 'trm_singlez', 'trm_hier6', 'trm_baseline',
        'trm_repo_hrm_mlp_t', 'trm_att_actcont', 'trm_ema', 'hrm_sru_v2', 'hrm_srupp_v3',
        'adamatan2_pytorch', 'krychu_hl_options', 'krychu_boards',
    }  # fmt: skip
