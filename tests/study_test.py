"""The study: equal compute, what is run and what not, its combination, its verdicts."""

import dataclasses
import json

import pytest

from experiments.study import __main__ as study
from experiments.study import arms, report, runs
from experiments.study import tests as evaluation
from hrm_jax import curriculum
from hrm_jax.errors import WorkdirError

EVERY = (*arms.BASELINES, *arms.TECHNIQUE_ARMS)
# Enough for the course of a study; hints are of Sudokus alone.
SOME = [
    arm for arm in EVERY
    if arm.name in ('hrm', 'trm', 'random starts', 'muon', 'flows', 'cgar', 'symbols', 'hints')
]  # fmt: skip
AVAILABLE = [arm for arm in EVERY if not arms.unknown_settings(arm)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A data set of each form, small: what it contains does not matter to the plan."""
    from data_builders import sudoku

    folder = tmp_path_factory.mktemp('study')
    for hints in (False, True):
        name = str(folder / f'sudoku-{hints}')
        sudoku.build(name, source='generated', size=4, train_count=40, test_count=4,
                     hints=hints, show=False)  # fmt: skip
    return folder


@pytest.fixture
def tasks(data):
    """The tasks of the study, with the small data set in place of theirs."""

    def build(folder, hints):
        import shutil

        shutil.copytree(data / f'sudoku-{hints}', folder)

    return tuple(dataclasses.replace(task, build=build, flops=2e10) for task in arms.TASKS)


@pytest.mark.parametrize('arm', AVAILABLE, ids=lambda arm: arm.name)
def test_every_arm_trains_with_the_same_flops(tmp_path, tasks, arm):
    task = tasks[0]
    config = runs.configuration(task, arm, tmp_path, 1.0)
    each = curriculum.mean_train_flops(config) * config.train.global_batch_size
    assert config.train.max_steps * each == pytest.approx(2e10, abs=each)
    examples = 40 * (1 if not arm.hints else 2)
    total = config.train.epochs * examples // config.train.global_batch_size
    assert 0 <= total - config.train.max_steps < 2 * total / 3  # the schedule ends with the run
    assert config.train.epochs == runs.EVALUATIONS * config.train.eval_interval
    changed = {key: arm.settings(task)[key] for key in arm.changes}
    values = config.to_dict()
    for key, value in changed.items():
        section, name = key.split('.')
        assert values[section][name] == value


@pytest.mark.parametrize('arm', AVAILABLE, ids=lambda arm: arm.name)
def test_the_tests_of_an_arm_are_possible(arm):
    config = arms.experiment({**arm.settings(arms.SUDOKU), 'model.vocab_size': 8})
    found = runs.tests_of(config, arm)
    assert list(found)[:2] == ['D4', 'D16']
    assert runs.score_of(arm, config) in found
    for name, settings in found.items():
        changed = evaluation.with_settings(config, settings)
        assert changed.eval_steps == (4 if name == 'D4' else 16)
        assert changed.eval.rollouts.on == name.startswith('rollouts')


def test_a_curriculum_costs_less_than_its_last_stage():
    plain = arms.experiment({**arms.BASE, **arms.TRM, 'model.seq_len': 16, 'model.vocab_size': 6})
    train = dataclasses.replace(plain.train, curriculum='cgar')
    stages = dataclasses.replace(plain, train=train)
    costs = [runs.curriculum.mean_train_flops(one) for one in (stages, plain)]
    assert costs[0] < costs[1]
    shorter = dataclasses.replace(
        plain, model=dataclasses.replace(plain.model, H_cycles=1, L_cycles=2)
    )
    always_first = dataclasses.replace(
        stages, train=dataclasses.replace(train, curriculum_shares=(1.0, 1.0))
    )
    assert runs.curriculum.mean_train_flops(always_first) == pytest.approx(
        runs.curriculum.mean_train_flops(shorter)
    )


def test_the_combination_leaves_out_what_contradicts():
    by_name = {arm.name: arm for arm in EVERY}
    ranked = [by_name[name] for name in ('flows', 'muon', 'wta 4', 'label smoothing')]
    together, parts = arms.combination(ranked)
    # Chains compare answers that flows would share; flows need stablemax.
    assert parts == ['flows', 'muon']
    assert together.deep
    assert together.changes['optimizer.name'] == 'muon'
    _, parts = arms.combination([by_name['eqr'], by_name['wta 4'], by_name['hints']])
    assert parts == ['eqr']


def record(task, arm, seed, value, digest='d', **changes):
    values = {
        'task': task.name, 'arm': arm.name, 'seed': seed, 'digest': digest, 'settings': {},
        'steps': 9, 'flops': 1e9, 'parameters': (10, 2), 'curve': [(9, value)],
        'tests': {name: {task.measure: value} for name in ('D4', 'D16')},
        'gflops': {'D4': 0.1, 'D16': 0.4}, 'core_seconds': 36.0, 'commit': 'c',
    }  # fmt: skip
    return runs.Record(**values | changes)


@pytest.fixture
def fake(monkeypatch, tmp_path, tasks):
    """A study whose runs cost 0.01 core-hours and whose accuracy is that of its arm's place."""
    begun = []

    def run(task, arm, seed, config, workdir, spend, log):
        begun.append((task.name, arm.name, seed))
        spend(36.0)
        order = [one.name for one in EVERY]
        place = order.index(arm.name) if arm.name in order else len(order)
        return record(task, arm, seed, 0.02 * place + 0.001 * seed, runs.digest(config))

    monkeypatch.setattr(runs, 'run', run)

    def make(hours):
        plan = study.Plan(
            'study', tasks, tuple(SOME), 2, 1.0, hours, tmp_path / 'w', tmp_path / 's'
        )
        return study.Study(plan)

    return make, begun


def test_all_are_screened_and_the_best_meet_the_other_tasks(fake, tasks, tmp_path):
    make, begun = fake
    first, second, third = (task.name for task in tasks)
    done = make(12.0)
    assert study.execute(done)
    screened = {arm for task, arm, _ in begun if task == first}
    available = [arm for arm in SOME if arm in AVAILABLE]
    assert screened == {*(arm.name for arm in available), 'combination'}
    best = [arm.name for arm in reversed(available) if arm.applies_to(tasks[1])][:4]
    wanted = {'hrm', 'trm', 'combination', *best}
    assert {arm for task, arm, _ in begun if task == second} == wanted
    assert {arm for task, arm, _ in begun if task == third} == wanted
    assert len(begun) == len(set(begun))
    assert done.spent() == pytest.approx(0.01 * len(begun))
    count = len(begun)
    assert study.execute(make(12.0))  # the same command: nothing is left to do
    assert len(begun) == count
    study.write(done, tmp_path / 'out')
    text = (tmp_path / 'out' / 'study.md').read_text()
    assert 'J, learned search' in text
    assert 'hints' not in best
    if 'symbols' not in screened:
        assert '- symbols on 6x6 Sudoku: no setting model.symbol_exchange' in text
    assert '- muon on' not in text  # it was run
    assert (tmp_path / 'out' / 'study.png').stat().st_size > 10_000
    assert len(json.loads((tmp_path / 'out' / 'study.json').read_text())) == count
    assert max(p.stat().st_size for p in (tmp_path / 's').iterdir()) < 2_000_000


def test_a_budget_ends_a_study_and_what_was_not_run_is_listed(fake, tasks, tmp_path):
    make, begun = fake
    done = make(0.1)  # 0.055 for the screening: five runs
    assert study.execute(done)
    assert [run[:2] for run in begun[:5]] == [
        (tasks[0].name, name) for name in ('hrm', 'hrm', 'trm', 'trm', 'random starts')
    ]
    assert len(begun) <= 10
    study.write(done, tmp_path)
    text = (tmp_path / 'study.md').read_text()
    assert '- random starts on 6x6 Sudoku: 1 of 2 seeds so far; seed 1 and later' in text
    assert '- muon on 6x6 Sudoku: seed 0 and later ones: the budget' in text


def test_records_of_other_settings_are_refused(fake, tasks):
    make, _ = fake
    done = make(12.0)
    task, arm = tasks[0], EVERY[0]
    file = done._file(task, arm, 0)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(dataclasses.asdict(record(task, arm, 0, 0.5, 'another'))))
    with pytest.raises(WorkdirError, match='other settings than the study has now'):
        study.execute(done)


def test_a_verdict_needs_two_standard_errors(tasks):
    def row(arm, *values):
        found = tuple(record(tasks[0], arm, seed, value) for seed, value in enumerate(values))
        return report.row_of(found, tasks[0].name, arm.name, 'D4', 'exact_accuracy', 500)

    base = row(EVERY[1], 0.50, 0.52, 0.54)
    assert report.verdict(base, base) == ''
    # The seeds of 0.60 agree, but all of them answered the same 500 puzzles.
    assert report.standard_error(row(EVERY[2], 0.6, 0.6, 0.6)) == pytest.approx(
        (0.6 * 0.4 / 500) ** 0.5
    )
    assert report.verdict(row(EVERY[2], 0.55, 0.57, 0.58), base).endswith('within the spread')
    assert report.verdict(row(EVERY[2], 0.62, 0.63, 0.61), base).endswith('helps')
    assert report.verdict(row(EVERY[2], 0.41, 0.40, 0.42), base).endswith('hurts')
    assert report.verdict(row(EVERY[2], 0.1, 0.5, 0.9), base).endswith('within the spread')
    assert 'one seed shows no spread' in report.verdict(row(EVERY[2], 0.9), row(EVERY[1], 0.1))


def test_a_missing_data_set_is_built(tmp_path):
    folder = arms.data_folder(tmp_path, arms.PATHS, hints=False)
    assert (folder / 'train' / 'dataset.json').is_file()
    assert arms.data_folder(tmp_path, arms.PATHS, hints=False) == folder
