"""Ahead-of-time compilation: everything about it that needs no compiler for another machine."""

import json
import subprocess
import sys

import pytest

from experiments import dataset_sizes as sizes
from experiments.aot import build, hlo, report, targets
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%overlapped (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.9 = bf16[32,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=43
}

%overlapped.clone (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.11 = bf16[32,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=43
}

%body (t: (s32[], f32[16])) -> (s32[], f32[16]) {
  %t = (s32[], f32[16]{0}) parameter(0)
  %all-reduce.1 = f32[16]{0} all-reduce(%g), channel_id=7, to_apply=%add
}

%condition (t: (s32[], f32[16])) -> pred[] {
  %two = s32[]{:T(128)} constant(2)
  ROOT %lt = pred[] compare(%i, %two), direction=LT
}

%outer_body (t: (s32[], f32[16])) -> (s32[], f32[16]) {
  %inner = (s32[]{:T(128)}, f32[16]{0}) while(%t), condition=%condition, body=%body
}

ENTRY %main.1 (a: f32[8]) -> f32[8] {
  %f = bf16[32,8]{1,0} fusion(%a), kind=kCustom, calls=%overlapped
  %g = bf16[32,8]{1,0} fusion(%a), kind=kCustom, calls=%overlapped.clone
  %l = (s32[], f32[16]) while(%b), body=%outer_body, backend_config={"known_trip_count":{"n":"3"}}
  %ar = (f32[8]{0}, /*index=1*/pred[6]{0}) all-reduce-start(%a, %c), channel_id=1, to_apply=%add
  %done = (f32[8]{0}, pred[6]{0}) all-reduce-done(%ar)
  %ag = (f32[2]{0}, f32[16]{0}) all-gather-start(%d), channel_id=2, dimensions={0}
  %cp = (bf16[5]{0}, bf16[5]{0}, u32[], u32[]) collective-permute-start(%e), channel_id=3
  %kernel = bf16[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"
  ROOT %copy = f32[8]{0} copy(%a), metadata={op_name="jit(step)/ all-reduce(made up)"}
}
"""


def test_collectives_of_a_program():
    assert hlo.collectives(PROGRAM) == {
        'all-reduce': hlo.Traffic(1 + 3 * 2, (8 * 4 + 6) + 3 * 2 * 16 * 4),
        'all-gather': hlo.Traffic(1 + 1, 32 * 8 * 2 + 16 * 4),
        'collective-permute': hlo.Traffic(1, 5 * 2),
    }
    assert hlo.kernels(PROGRAM) == 1
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.collectives('')


def test_targets_by_name():
    assert all(targets.find(name).name == name for name in targets.NAMED)
    assert targets.find('h100:8').usable < targets.find('h100:8').memory == 84_942_979_072
    for wrong in ('v5e', 'v5e:', 'h100:0', 'h100:2x4', 'a100:8'):
        with pytest.raises(ConfigError, match='must be a machine such as v5e:2x4'):
            targets.find(wrong)


def _config(path='', **model):
    return ExperimentConfig.from_dict({'name': 'x', 'data': {'path': path}, 'model': model})


def test_sizes_of_known_data_sets():
    model = sizes.fill_in(_config('data/arc-1-concept-aug-1000')).model
    assert (model.vocab_size, model.seq_len, model.num_puzzle_identifiers) == (12, 900, 876_412)
    model = sizes.fill_in(_config('data/sudoku-extreme-full', seq_len=36)).model
    assert (model.vocab_size, model.seq_len) == (11, 36)
    with pytest.raises(ConfigError, match=r'model\.vocab_size=.* --config\.model\.num_puzzle'):
        sizes.fill_in(_config('data/mine', seq_len=5))


def _found(total):
    memory = None if total is None else build.Memory(10, 2, total - 12, 0, total)
    return build.Compiled(
        devices=8, mesh={'data': 4, 'fsdp': 2, 'model': 1}, memory=memory,
        refusal='RESOURCE_EXHAUSTED: too much', flops=None, flops_by_hand=3e12,
        bytes_accessed=None, collectives={'all-reduce': hlo.Traffic(4, 56_000_000)}, kernels=0,
        seconds=3,
    )  # fmt: skip


@pytest.mark.parametrize('total', [1000, 70_000_000_000, None])
def test_report_says_whether_it_fits(tmp_path, total):
    target, config, found = targets.find('h100:8'), _config('data/sudoku'), _found(total)
    text = report.describe(config, target, found)
    assert report.fits(target, found) == (total == 1000) == ('DOES NOT FIT' not in text)
    about = {'date': '2026-01-01', 'versions': 'jax 1', 'commit': 'abc', 'command': 'make aot'}
    for _ in range(2):  # the same command again takes the place of its entry
        report.add(tmp_path / 'made/aot', report.record(config, target, found, about))
    (entry,) = json.loads((tmp_path / 'made/aot.json').read_text())
    assert entry['fits'] == (total == 1000)
    (row,) = [
        line
        for line in (tmp_path / 'made/aot.md').read_text().splitlines()
        if line.startswith('| h100:8 |')
    ]
    assert row.count('|') == 12
    assert '| 4 x 2 x 1 | 96 |' in row
    assert '4 all-reduce (56 MB)' in row
    assert ('too much' in row) == (total != 1000)


def test_command_line():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, '-m', 'experiments.aot', *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run('--config=configs/sudoku_extreme_1k.py', '--target=a100:8')
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert 'must be a machine such as' in done.stderr
    assert run('--config=configs/sudoku_extreme_1k.py').returncode == 2
