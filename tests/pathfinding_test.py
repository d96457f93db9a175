"""The commands around path finding: show a board, sweep the depth, report the study."""

import dataclasses
import importlib
import io
import json

from PIL import Image
import pytest

from data_builders import pathfinding
from experiments import depth_sweep
from experiments.pathfinding import report as pathfinding_report
from experiments.pathfinding import show as find_path
from experiments.pathfinding import study as pathfinding_ablation
from experiments.pathfinding.report import Result, Row
from hrm_jax import train
from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.errors import ConfigError
from hrm_jax.visualize import paths

SIZE = 3


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of two steps."""
    root = tmp_path_factory.mktemp('path')
    pathfinding.build(str(root / 'data'), board_size=SIZE, train_count=32, val_count=8, show=False)
    config = importlib.import_module('configs.pathfinding_hl').get_config()
    config.data.path = str(root / 'data')
    config.model.hidden_size, config.model.num_heads = 16, 2
    config.model.H_layers = config.model.L_layers = 1
    config.train.global_batch_size, config.train.max_steps = 8, 2
    config.train.eval_interval, config.logging.tensorboard = 0, False
    outcome = train.train(ExperimentConfig.from_dict(config), root / 'run', log=lambda _: None)
    assert {'eval/all/acc4x', 'eval/all/exact_accuracy'} <= set(outcome.metrics)
    return root / 'run'


def test_a_random_board_is_answered_and_drawn(workdir, tmp_path, capsys):
    arguments = [
        '--workdir',
        str(workdir),
        '--seed',
        '4',
        '--segments',
        '3',
        '--out',
        str(tmp_path),
    ]
    assert find_path.main(arguments) == 0
    printed = capsys.readouterr().out
    question = printed.split('question:\n')[1].split('\n\n')[0]
    assert len(question.split()) == SIZE * SIZE
    assert {'S', 'E'} <= set(question.split())
    with Image.open(tmp_path / 'steps.png') as image:
        assert image.width % 7 == 0  # 3 segments of 2 updates, and the first guess
    assert (tmp_path / 'steps.gif').read_bytes()[:3] == b'GIF'


def test_other_sizes_than_trained_need_free_positions():
    model = ModelConfig(vocab_size=5, seq_len=9, num_puzzle_identifiers=1, puzzle_emb_ndim=0)
    config = ExperimentConfig(model=model)
    assert find_path.sized(config, 4).model.seq_len == 16
    learned = dataclasses.replace(model, pos_encodings='rope+learned')
    with pytest.raises(ConfigError, match='made for boards of 9 cells'):
        find_path.sized(dataclasses.replace(config, model=learned), 4)
    with pytest.raises(ConfigError, match='must be a path finder'):
        find_path.sized(dataclasses.replace(config, model=dataclasses.replace(
            model, vocab_size=11)), 3)  # fmt: skip


def test_a_sweep_writes_table_and_plot(workdir, tmp_path, capsys):
    arguments = ['--workdir', str(workdir), '--max-steps', '3', '--out', str(tmp_path)]
    assert depth_sweep.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:5]] == ['1', '2 (trained)', '3']
    values = json.loads((tmp_path / 'depth_sweep.json').read_text())['metrics']
    assert len(values['exact_accuracy']) == 3
    assert (tmp_path / 'depth_sweep.png').stat().st_size > 1000


def test_pictures_have_a_frame_for_every_step():
    frames = [[step % 5] * 4 for step in range(3)]
    with Image.open(io.BytesIO(paths.animation(frames))) as image:
        assert image.n_frames == 3
        size = image.size
    with Image.open(io.BytesIO(paths.strip(frames))) as image:
        assert image.size == (3 * size[0], size[1])
    with pytest.raises(ValueError, match='must be square'):
        paths.board_text([0, 1, 2])


@pytest.mark.parametrize(('differences', 'says'), [
    ([0.1, 0.02], 'yes'), ([-0.1, -0.02], 'no'), ([0.1, -0.02], 'inconclusive'),
    ([0.1], 'inconclusive'),
])  # fmt: skip
def test_verdicts_need_seeds_that_agree(differences, says):
    assert f': {says}' in pathfinding_report.verdict(differences)


def test_the_report_averages_and_pairs():
    few, many = Row('H/L', 2, 2, 2), Row('H/L', 4, 2, 2)
    results = [
        Result(row, seed, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5 + up], [0.6 + up] * 6, [0.9] * 6, 60.0)
        for row, up in ((few, 0.0), (many, 0.1)) for seed in range(2)
    ]  # fmt: skip
    assert Result.from_json(results[0].to_json()) == results[0]
    text = pathfinding_report.report(results, 'test')
    assert '| 4 train segments against 2, all pairs of rows | +0.020' in text
    assert '| H/L | 2 | 2x2 | 0.500 +-0.000 | 0.600 +-0.000 | +0.100 | 0.400' in text
    assert '| 8 test segments against 2, all rows | +0.340' in text


def test_the_studies_rows_are_those_of_the_source():
    small, full = pathfinding_ablation.SMALL, pathfinding_ablation.FULL
    assert len(small.rows) == 10
    assert {row.slug for row in small.rows} < {row.slug for row in full.rows}
    config = pathfinding_ablation.experiment(full, Row('H-only (bptt)', 4, 2, 2), 1, 'data')
    assert (config.model.hidden_size, config.act.halt_max_steps, config.seed) == (360, 4, 1)
    assert config.model.levels == 'single'
