"""Comparison of runs: rows, means and spreads worked out by hand, formats, picture and page."""

import csv
import io
import json
import math
import shutil

import pytest

from hrm_jax.cli import compare as command
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import WorkdirError
from hrm_jax.model import flops
from hrm_jax.run import comparison
from hrm_jax.visualize import curves
from tests import browser, commands

EXACT, LOSS = 'eval/all/exact_accuracy', 'eval/all/lm_loss'
SIZES = {'vocab_size': 5, 'seq_len': 16, 'num_puzzle_identifiers': 1}


def write_run(place, lr, seed, exact, loss, speed=2.0):
    config = ExperimentConfig.from_dict(
        {
            'name': place.name, 'seed': seed, 'model': SIZES, 'optimizer': {'lr': lr},
            'train': {'global_batch_size': 8},
        }
    )  # fmt: skip
    place.mkdir(parents=True)
    (place / 'config.json').write_text(config.to_json())
    lines = []
    for number, values in enumerate(zip(exact, loss, strict=True), start=1):
        lines.append({'step': 10 * number - 5, 'train/lm_loss': 1.0})
        lines.append({'step': 10 * number, **dict(zip((EXACT, LOSS), values, strict=True))})
    (place / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    timing = [{'step': 5, 'steps_per_second': speed}, {'step': 6, 'save_seconds': 1.0}]
    (place / 'timing.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in timing))
    return config


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / 'sweep'
    write_run(place / 'a0', 1e-3, 0, [0.1, 0.5, 0.4], [3.0, 1.0, 2.0])
    write_run(place / 'a1', 1e-3, 1, [0.2, 0.6, 0.8], [3.0, 2.0, 1.0], speed=4.0)
    write_run(place / 'b0', 3e-4, 0, [0.3, None], [2.0, 2.5])
    return place


def compared(folder, metrics=()):
    runs = comparison.find_runs([folder])
    return comparison.compare([comparison.read_run(place) for place in runs], metrics)


def rows_of(*folders):
    runs = comparison.find_runs(folders)
    return comparison.compare([comparison.read_run(place) for place in runs]).rows


def test_rows_final_best_spread_speed_and_cost(folder):
    result = compared(folder)
    assert [row.settings for row in result.rows] == [{'optimizer.lr': 1e-3}, {'optimizer.lr': 3e-4}]
    first, second = result.rows
    assert first.final[EXACT].mean == pytest.approx(0.6)
    assert first.final[EXACT].spread == pytest.approx(0.4 / math.sqrt(2))
    assert first.best[EXACT].mean == pytest.approx(0.65)  # .5 and .8: each run's own best
    assert first.best[LOSS].mean == 1.0  # lower is better
    assert first.final[LOSS].mean == 1.5
    assert first.steps == (30, 30)
    assert first.steps_per_second.mean == 3.0
    config = first.runs[0].config
    assert first.flops.mean == 30 * 8 * flops.train_step(config.model, config.act)
    assert second.final[EXACT].mean == 0.3  # the second evaluation measured nothing
    assert math.isnan(second.final[EXACT].spread)
    assert result.metrics == (EXACT,)
    assert compared(folder, ['lm_loss']).metrics == (LOSS,)
    with pytest.raises(WorkdirError, match='must be one of'):
        compared(folder, ['lm_los'])


def test_curves_average_the_steps_that_all_seeds_have(folder):
    write_run(folder / 'a2', 1e-3, 2, [0.3], [1.0])
    row = compared(folder).rows[0]
    ((step, value),) = comparison.mean_curve(row, EXACT)
    assert (step, value.count) == (10, 3)
    assert value.mean == pytest.approx(0.2)
    assert value.spread == pytest.approx(0.1)


def test_formats(folder, capsys):
    assert commands.exit_code(command.main, folder) == 0
    markdown = capsys.readouterr().out.splitlines()
    assert markdown[0].split() == (
        f'| optimizer.lr | seeds | steps | {EXACT} final | {EXACT} best | steps/s | FLOP |'.split()
    )
    assert '| 0.001        | 2     | 30    | 0.6 +- 0.28' in markdown[2]
    assert commands.exit_code(command.main, folder, '--format', 'csv') == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line['seeds'] for line in lines] == ['0 1', '0']
    assert float(lines[0][f'{EXACT} best mean']) == pytest.approx(0.65)
    assert lines[1][f'{EXACT} final spread'] == ''
    assert commands.exit_code(command.main, folder, '--format', 'json') == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert rows[1]['final'][LOSS] == {'mean': 2.5, 'spread': None, 'count': 1}
    assert rows[0]['runs'] == [str(folder / 'a0'), str(folder / 'a1')]


def test_rows_of_many_settings_have_the_names_of_their_folders(folder, tmp_path, capsys):
    """Labels of all their settings would not fit below a picture."""
    source = json.loads((folder / 'a0' / 'config.json').read_text())
    for arm, width in (('plain', 32), ('wide', 64)):
        for seed in (0, 1):
            run = tmp_path / arm / f'seed={seed}'
            shutil.copytree(folder / 'a0', run)
            model = source['model'] | {'hidden_size': width, 'H_cycles': width, 'L_cycles': width}
            values = source | {'seed': seed, 'model': model | {'rope_theta': float(width)}}
            (run / 'config.json').write_text(json.dumps(values))
    rows = rows_of(tmp_path / 'plain', tmp_path / 'wide')
    assert [row.label for row in rows] == ['plain', 'wide']
    assert [len(row.runs) for row in rows] == [2, 2]
    assert commands.exit_code(command.main, tmp_path / 'plain', tmp_path / 'wide') == 0
    out = capsys.readouterr().out
    assert '| plain ' in out
    assert 'model.rope_theta' in out
    # One folder around all rows tells nothing; their own names do where each is one run.
    alone = rows_of(tmp_path / 'plain' / 'seed=0', tmp_path / 'wide' / 'seed=1')
    assert [row.label for row in alone] == ['plain', 'wide']
    for name in ('a', 'b'):
        shutil.copytree(tmp_path / ('plain' if name == 'a' else 'wide') / 'seed=0',
                        tmp_path / 'flat' / name)  # fmt: skip
    assert [row.label for row in rows_of(tmp_path / 'flat')] == ['a', 'b']


def test_single_runs_are_named_and_what_is_no_run_is_refused(folder, tmp_path, capsys):
    assert commands.exit_code(command.main, folder / 'a0', folder / 'a0') == 0
    out = capsys.readouterr().out
    assert '| run ' in out
    assert '| a0 ' in out
    assert '| 1 ' in out
    (tmp_path / 'empty').mkdir()
    assert commands.exit_code(command.main, tmp_path / 'empty') == 1
    assert 'must be the folder of a run or of a sweep' in capsys.readouterr().err
    (folder / 'a0' / 'metrics.jsonl').unlink()
    arguments = (folder / 'a0', '--png', tmp_path / 'x.png')
    assert commands.exit_code(command.main, *arguments) == 1
    assert 'must be an evaluation to draw' in capsys.readouterr().err


def test_picture_and_page_are_written(folder, tmp_path):
    (folder / 'a0' / 'config.json').write_text(
        (folder / 'a0' / 'config.json').read_text().replace('"a0"', '"</script><b>"')
    )
    result = compared(folder, [EXACT, LOSS, 'lm_loss'])
    picture = curves.save_png(tmp_path / 'curves.png', result)
    assert picture.read_bytes().startswith(b'\x89PNG')
    alone = compared(folder / 'a0')
    assert alone.rows[0].label == '</script><b>'
    for one in (result, alone):
        text = curves.write_page(tmp_path / 'curves.html', one, '<b>runs</b>').read_text()
        assert '<b>' not in text
        assert text.count('</script>') == 2
        assert '://' not in text.replace('http://www.w3.org/2000/svg', '')  # nothing is fetched


@pytest.mark.skipif(not browser.is_there(), reason='needs chromium and chromedriver')
def test_the_page_draws_in_a_browser(folder, tmp_path):
    result = compared(folder, [EXACT, LOSS])
    page = curves.write_page(tmp_path / 'curves.html', result, 'runs')
    count = 'return document.querySelectorAll("{}").length'
    with browser.started() as window:
        window.open(page)
        assert window.run('return document.getElementById("error").textContent') == ''
        assert window.run(count.format('#table tbody tr')) == 2
        assert window.run(count.format('polyline.mean')) == 4
        window.run('document.querySelector("#legend input").click()')
        assert window.run(count.format('polyline.mean')) == 2
        window.run('document.getElementById("seeds").click()')
        assert window.run(count.format('polyline')) == 4
        window.run(
            'const a = document.getElementById("axis"); a.value = "flops";'
            'a.dispatchEvent(new Event("change"))'
        )
        assert 'FLOPs' in window.run('return document.querySelector("figure svg").textContent')
