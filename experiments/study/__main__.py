"""The study: which technique gives what at a small size, at equal compute.

    python -m experiments.study --plan        # what would run, and its budget
    python -m experiments.study               # hours on two CPU cores; the same command resumes
    python -m experiments.study --small       # one task, four arms, one seed: 6 minutes of one core

First every arm alone on 6x6 Sudokus; then the best four, their combination and both baselines on
small mazes and path finding. All runs of a task train with the same FLOPs. Several processes given
the same command share the work (``taskset -c 0 python -m experiments.study & taskset -c 1 ...``:
one for each core is faster than one for both). Records of finished runs and the log are kept in
--out/state/NAME, small enough to commit, so that the study continues from them in another checkout.
The arms are sweeps: ``hrm-jax compare runs/study/sudoku6/*/ --png curves.png`` draws their curves.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import datetime
import functools
import json
from pathlib import Path
import signal
import statistics
import sys
import time

from experiments.study import arms, report, runs
from experiments.study.arms import Arm, Task
from experiments.study.runs import Record
from hrm_jax import files, locks
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import UserError, WorkdirError

_BEST = 4
_SCREENING_SHARE = 0.55  # of the budget, so that the other tasks have the rest
_TEST_PUZZLES = 500


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study has.

    Attributes:
      name: of its files.
      tasks: the first is the one that all arms are screened on.
      arms: in order.
      seeds: how many.
      scale: of the FLOPs of the tasks.
      core_hours: at which no further run begins.
      workdir, state: folders of the runs and of the records.
    """

    name: str
    tasks: tuple[Task, ...]
    arms: tuple[Arm, ...]
    seeds: int
    scale: float
    core_hours: float
    workdir: Path
    state: Path


class Study:
    """The records of a study, and what is left to do."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.skipped: dict[tuple[str, str], str] = {}  # (task, arm) -> why it was not run
        self._configs: dict[tuple[str, str], ExperimentConfig] = {}
        self.state = plan.state

    def log(self, text: str) -> None:
        """Prints a line and appends it to the log of the state."""
        line = f'{datetime.datetime.now():%Y-%m-%d %H:%M:%S} {text}'
        print(line, flush=True)
        self.state.mkdir(parents=True, exist_ok=True)
        with open(self.state / 'log.txt', 'a') as file:
            file.write(f'{line}\n')

    @functools.cached_property
    def unavailable(self) -> dict[str, str]:
        """Arms that this version has no settings for -> which are missing."""
        lacking = {arm.name: arms.unknown_settings(arm) for arm in self.plan.arms}
        return {name: f'no setting {", ".join(keys)} in this version'
                for name, keys in lacking.items() if keys}  # fmt: skip

    def config(self, task: Task, arm: Arm) -> ExperimentConfig:
        key = task.name, arm.name
        if key not in self._configs:
            self._configs[key] = runs.configuration(task, arm, self.plan.workdir, self.plan.scale)
        return self._configs[key]

    def records(self) -> list[Record]:
        """Records of the finished runs."""
        found = []
        for path in sorted(self.state.glob('*--*.json')):
            found.append(Record.from_dict(files.read_json(path, WorkdirError, dict)))
        return found

    def done(self, task: Task, arm: Arm, seed: int) -> bool:
        """Whether there is a record of a run.

        Raises:
          WorkdirError: it was made with other settings.
        """
        path = self._file(task, arm, seed)
        if not path.is_file():
            return False
        record = Record.from_dict(files.read_json(path, WorkdirError, dict))
        WorkdirError.require(
            record.digest == runs.digest(self.config(task, arm)),
            f'{path} is the record of a run with other settings than the study has now. Give '
            f'another --out, or remove it.',
        )
        return True

    def _file(self, task: Task, arm: Arm, seed: int) -> Path:
        return self.state / f'{task.name}--{runs.slug(arm.name)}--seed{seed}.json'

    def spent(self) -> float:
        """Core-hours of all processes so far, those of interrupted runs too."""
        parts = self.state.glob('spent-*.json')
        return sum(files.read_json(path, WorkdirError, dict)['seconds'] for path in parts) / 3600

    def spend(self, seconds: float) -> None:
        path = self.state / 'spent-core-seconds.json'
        with locks.exclusive(self.plan.workdir / '.spent.lock', 'file', wait=True):
            before = files.read_json(path, WorkdirError, dict)['seconds'] if path.is_file() else 0
            files.write_text(path, json.dumps({'seconds': round(before + seconds, 1)}) + '\n')

    def run_all(self, task: Task, wanted: Sequence[Arm], limit: float) -> bool:
        """Runs every seed of some arms on a task; waits for what other processes run.

        Args:
          task: on which.
          wanted: the arms, in order.
          limit: core-hours spent in all at which no further run begins.

        Returns:
          False: a signal ended it.
        """
        todo = []
        for arm in wanted:
            reason = self.unavailable.get(arm.name, '')
            if not arm.applies_to(task):
                reason = f'does not apply to {task.title}'
            if reason:
                self.skipped[task.name, arm.name] = reason
            else:
                todo += [(arm, seed) for seed in range(self.plan.seeds)]
        while todo:
            held = []
            for arm, seed in todo:
                if self.done(task, arm, seed):
                    continue
                with self._taken(task, arm, seed) as mine:
                    if not mine:
                        held.append((arm, seed))
                        continue
                    if self.done(task, arm, seed):  # meanwhile
                        continue
                    if self.spent() + self._cost(task) > limit:
                        self.skipped.setdefault(
                            (task.name, arm.name),
                            f'seed {seed} and later ones: the budget of {limit:.3g} core-hours '
                            f'for this part',
                        )
                        continue
                    if not self._run(task, arm, seed):
                        return False
            todo = held
            if held:
                time.sleep(5)
        return True

    def _cost(self, task: Task) -> float:
        """Core-hours that the next run of a task may take: those of the longest one so far."""
        return max((one.core_seconds for one in self.records() if one.task == task.name),
                   default=0) / 3600  # fmt: skip

    @contextlib.contextmanager
    def _taken(self, task: Task, arm: Arm, seed: int) -> Iterator[bool]:
        folder = self.plan.workdir / 'locks'
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as owned:
            path = folder / self._file(task, arm, seed).stem
            try:
                owned.enter_context(locks.exclusive(path, 'file'))
            except locks.Held:
                yield False
                return
            yield True

    def _run(self, task: Task, arm: Arm, seed: int) -> bool:
        try:
            record = runs.run(
                task, arm, seed, self.config(task, arm), self.plan.workdir, self.spend, self.log
            )
        except runs.Interrupted as error:
            self.log(f'{error}; the same command resumes')
            return False
        files.write_text(
            self._file(task, arm, seed), json.dumps(dataclasses.asdict(record), indent=1) + '\n'
        )
        tests = ', '.join(
            f'{name} {100 * values[task.measure]:.1f} %' for name, values in record.tests.items()
        )
        self.log(f'{task.name}, {arm.name}, seed {seed}: {tests}; '
                 f'{record.core_seconds / 60:.1f} core-minutes')  # fmt: skip
        return True

    def not_run(self, records: Sequence[Record]) -> list[tuple[str, str, str]]:
        """Returns what lacks runs: task, arm, why."""
        found = []
        for number, task in enumerate(self.plan.tasks):
            names = [arm.name for arm in self.plan.arms]
            if number:  # what the screening did not choose has no line of its own
                names = [arm for name, arm in self.skipped if name == task.name]
                others = f'all but the best {_BEST} of {self.plan.tasks[0].title}'
                found.append((task.title, others, 'as planned'))
            for name in names:
                done = sum((one.task, one.arm) == (task.name, name) for one in records)
                if done >= self.plan.seeds:
                    continue
                why = self.skipped.get((task.name, name), self.unavailable.get(name, 'not run yet'))
                some = f'{done} of {self.plan.seeds} seeds so far; ' if done else ''
                found.append((task.title, name, f'{some}{why}'))
        return found

    def rank(self, task: Task) -> list[Arm]:
        """Technique arms by the mean of their score, the best one first; those without runs not."""
        records, scored = self.records(), []
        for arm in self.plan.arms:
            if arm in arms.BASELINES or (task.name, arm.name) in self.skipped:
                continue
            row = self.row(records, task, arm, runs.score_of(arm, self.config(task, arm)))
            if row is not None and len(row.values) == self.plan.seeds:
                scored.append((statistics.fmean(row.values), arm))
        return [arm for _, arm in sorted(scored, key=lambda pair: -pair[0])]

    def row(self, records: Sequence[Record], task: Task, arm: Arm, test: str) -> report.Row | None:
        return report.row_of(records, task.name, arm.name, test, task.measure, _TEST_PUZZLES)


def budget(plan: Plan) -> str:
    """States what a study costs, before it starts."""
    trained = [arm for arm in plan.arms if not arms.unknown_settings(arm)]
    others = min(_BEST, len(trained) - len(arms.BASELINES)) + 1 + len(arms.BASELINES)
    first, *rest = plan.tasks
    lines = [f'study {plan.name}: at most {plan.core_hours:g} core-hours in all']
    count = len([arm for arm in trained if arm.applies_to(first)]) * plan.seeds
    lines.append(f'  {first.title}: {count} runs of {first.flops * plan.scale:.3g} FLOP each: '
                 f'{", ".join(arm.name for arm in trained if arm.applies_to(first))}')  # fmt: skip
    for task in rest:
        lines.append(f'  {task.title}: {others * plan.seeds} runs of '
                     f'{task.flops * plan.scale:.3g} FLOP each: both baselines, the best '
                     f'{_BEST} of {first.title}, their combination')  # fmt: skip
    return '\n'.join(lines)


def execute(study: Study) -> bool:
    """Runs the whole study; False: it was interrupted."""
    plan = study.plan
    screening, *others = plan.tasks
    study.log(budget(plan))
    limit = plan.core_hours * (_SCREENING_SHARE if others else 1.0)
    if not study.run_all(screening, plan.arms, limit):
        return False
    if not others:
        return True
    ranked = study.rank(screening)
    best = [arm for arm in ranked if all(arm.applies_to(task) for task in others)][:_BEST]
    together, parts = arms.combination(best)
    study.log(f'best of {screening.title}: {", ".join(arm.name for arm in best)}; '
              f'combination: {" + ".join(parts)}')  # fmt: skip
    # The combination on the first task, too: there its parts are known one by one.
    for task in (*others, screening):
        wanted = [together] if task is screening else [*arms.BASELINES, *best, together]
        if len(parts) < 2:
            wanted = [arm for arm in wanted if arm is not together]
        if not study.run_all(task, wanted, plan.core_hours):
            return False
    return True


def write(study: Study, out: Path) -> None:
    """Writes NAME.md, NAME.json and NAME.png of what was run so far."""
    plan, records = study.plan, study.records()
    files.write_text(
        out / f'{plan.name}.json',
        json.dumps([dataclasses.asdict(one) for one in records], indent=1) + '\n',
    )
    usual = arms.BASE['act.halt_max_steps']
    scores: dict[str, str] = {}
    parts: dict[str, list[report.Row]] = {}
    texts = []
    for task in plan.tasks:
        names = dict.fromkeys(one.arm for one in records if one.task == task.name)
        order = [arm.name for arm in plan.arms if arm.name in names]
        order += [name for name in names if name not in order]
        rows = []
        for name in order:
            own = [one for one in records if (one.task, one.arm) == (task.name, name)]
            deep = own[0].settings.get('model.flow', False)
            scores[name] = f'D{runs.DEEPER * usual if deep else usual}'
            for test in own[0].tests:
                row = report.row_of(records, task.name, name, test, task.measure, _TEST_PUZZLES)
                rows += [row] if row else []
        if rows:
            parts[task.title] = rows
            texts.append(f'## {task.title}\n\nCounted: `{task.measure}`.\n\n'
                         + report.table(rows, scores))  # fmt: skip
    if not parts:
        return
    report.plot(parts, scores, out / f'{plan.name}.png',
                f'Equal training FLOPs within a task; {plan.seeds} seeds')  # fmt: skip
    text = page(study, records, texts)
    files.write_text(out / f'{plan.name}.md', text)
    print(text)


def page(study: Study, records: Sequence[Record], texts: Sequence[str]) -> str:
    """The whole page."""
    plan = study.plan
    commits = ', '.join(sorted({one.commit for one in records}))
    missing = [f'- {arm} on {task}: {why}' for task, arm, why in study.not_run(records)]
    missing += [
        f'- {letter}, {arms.TECHNIQUES[letter]}: {why}' for letter, why in arms.WITHOUT_ARM.items()
    ]
    legend = '\n'.join(f'- {letter}: {text}' for letter, text in arms.TECHNIQUES.items())
    of = {arm.technique: [] for arm in plan.arms if arm.technique}
    for arm in plan.arms:
        if arm.technique:
            of[arm.technique].append(arm.name)
    named = '; '.join(f'{letter}: {", ".join(names)}' for letter, names in sorted(of.items()))
    tables = '\n'.join(texts)
    return f"""# The study: techniques at a small size, at equal compute

    python -m experiments.study{' --small' if plan.name.endswith('small') else ''}

{datetime.date.today()}, commit {commits}; {study.spent():.1f} core-hours of at most
{plan.core_hours:g}, CPU. Models of 64 channels, trained with {arms.BASE['act.halt_max_steps']} ACT
steps; every arm is TRM (one module, H_cycles 2, L_cycles 3) with the settings of its technique and
no others; learning rates were not tuned for each. Within a task all runs train with the same FLOPs
(matrix products, model/flops.py), so a technique that costs more gets fewer steps. Mean +- sample
standard deviation over seeds, on {_TEST_PUZZLES} test puzzles that no training saw. D4, D16: ACT
steps of the test; rollouts: 8 chains of 16 steps. In bold what an arm is judged by. A verdict needs
a difference of two standard errors; with {plan.seeds} seeds it is a hint, not a proof, and says
nothing about large models, long trainings or other tasks.

{tables}
![Every arm](./{plan.name}.png)

## Arms

{legend}

In this study: {named}.

## Not run

{chr(10).join(missing)}
"""


def make_plan(flags: argparse.Namespace) -> Plan:
    name = 'study_small' if flags.small else 'study'
    chosen = (*arms.BASELINES, *arms.TECHNIQUE_ARMS)
    tasks, seeds, hours = arms.TASKS, flags.seeds or 3, flags.core_hours or 12.0
    if flags.small:
        kept = ('hrm', 'trm', 'muon', 'token mixing')
        chosen = tuple(arm for arm in chosen if arm.name in kept)
        tasks, seeds, hours = tasks[:1], flags.seeds or 1, flags.core_hours or 1.0
    workdir = flags.workdir or Path('runs') / name
    scale = flags.scale or (0.5 if flags.small else 1.0)
    state = flags.out / 'state' / name
    return Plan(name, tasks, chosen, seeds, scale, hours, workdir.absolute(), state)


def _stop(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and writes its page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.study',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--small', action='store_true', help='one task, four arms, one seed')
    parser.add_argument('--plan', action='store_true', help='states the budget and ends')
    parser.add_argument('--report', action='store_true', help='writes the page of what there is')
    parser.add_argument('--seeds', type=int, default=0, help='of each arm (3; small: 1)')
    parser.add_argument(
        '--core-hours', type=float, default=0, help='at which no further run begins (12; small: 1)'
    )
    parser.add_argument(
        '--scale', type=float, default=0, help='of the FLOPs of each run (1; small: 0.5)'
    )
    parser.add_argument('--workdir', type=Path, help='of the runs (runs/study, runs/study_small)')
    parser.add_argument(
        '--out', type=Path, default=Path('experiments/results'), help='of records and page'
    )
    flags = parser.parse_args(argv)
    plan = make_plan(flags)
    if flags.plan:
        print(budget(plan))
        return 0
    signal.signal(signal.SIGTERM, _stop)
    study = Study(plan)
    try:
        finished = flags.report or execute(study)
        write(study, flags.out)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    if finished and not flags.report:
        study.log(f'done; {plan.state} may be removed')
    return 0 if finished else 130


if __name__ == '__main__':
    sys.exit(main())
