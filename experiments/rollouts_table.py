"""Accuracy and speed of rollouts by breadth, depth and selection, on the quickstart's model.

    make quickstart
    python -m experiments.rollouts_table

Once all chains run to depth D, and once each stops when its halting rule halts it, at step D at the
latest. Every selection chooses among the same chains, and smaller breadths have the first ones of
the greatest: a chain does not depend on how many there are. Breadth comes from noise on the high
state before every ACT step. Writes rollouts_quickstart.md and .png into --out, and every row that
is measured into rollouts_quickstart.json there: the same command continues from it where it was
interrupted.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.config import EvalConfig, ExperimentConfig, RolloutConfig
from hrm_jax.data import puzzles, records
from hrm_jax.errors import UserError
from hrm_jax.inference import rollouts, rollouts_choice
from hrm_jax.inference.rollouts_choice import Chains
from hrm_jax.inference.solver import Solver
from hrm_jax.types import Batch, Weights
from hrm_jax.visualize import figures

SELECTIONS = ('q', 'vote', 'halted_vote', 'residual', 'rules', 'first_halt')
HALTINGS = {'max': 'all chains run to depth D', 'adaptive': 'each chain stops when it halts'}
_SLOTS = 16  # of the timed runs
_REPEATS = 2  # of which the faster one counts
_RUNNERS: dict[Any, rollouts.Runner] = {}  # compiled ones


@dataclasses.dataclass(frozen=True)
class Row:
    """Results of one breadth and depth.

    Attributes:
      halting: of ``HALTINGS``.
      accuracy: share of puzzles solved, by selection.
      any_chain: share of puzzles that at least one chain solves.
      steps, gflops: of a puzzle, all its chains together.
      speed: puzzles a second.
      together: the same where the first chain that halts stops all of its puzzle; 0: not run.
    """

    halting: str
    breadth: int
    depth: int
    accuracy: dict[str, float]
    any_chain: float
    steps: float
    gflops: float
    speed: float
    together: float


class Kept:
    """The rows measured so far, in a file.

    Attributes:
      rows: by halting, breadth and depth.
    """

    def __init__(self, path: pathlib.Path, settings: dict[str, Any]):
        """Reads the rows of a file; those of other settings are not taken."""
        self._path, self._settings = path, settings
        self.rows: dict[tuple[str, int, int], Row] = {}
        if path.exists():
            content = files.read_json(path, UserError, dict)
            if content.get('settings') == settings:
                for row in content['rows']:
                    self._put(Row(**row))

    def _put(self, row: Row) -> None:
        self.rows[row.halting, row.breadth, row.depth] = row

    def add(self, row: Row) -> None:
        """Keeps a row."""
        self._put(row)
        print(row, file=sys.stderr, flush=True)
        rows = [dataclasses.asdict(one) for one in self.rows.values()]
        text = json.dumps({'settings': self._settings, 'rows': rows}, indent=1)
        files.write_text(self._path, text + '\n')


def experiment(solver: Solver, noise: float, depth: int, halting: str, **options: Any):
    """The solver's experiment with other rollouts: breadth, selection and so on."""
    section = EvalConfig(
        halting=halting,
        halt_max_steps=depth,
        high_step_noise=noise,
        save_outputs=(),
        rollouts=RolloutConfig(**options),
    )
    return dataclasses.replace(solver.config, eval=section)


def run(
    solver: Solver, config: ExperimentConfig, questions: np.ndarray, slots: int
) -> list[list[rollouts.Rollout]]:
    """The rollouts of questions, in their order."""
    key = (config, slots)
    if key not in _RUNNERS:
        _RUNNERS[key] = rollouts.Runner(config, solver.mesh, slots, 4 * slots)
    runner, ids = _RUNNERS[key], np.zeros(len(questions), np.int32)
    batches = [
        Batch(part, part, ids[: len(part)])
        for part in np.split(questions, range(runner.queue, len(questions), runner.queue))
    ]
    parts = runner.run([solver.weights], batches, solver.task, solver.transform)
    found = {one[0].number: one for part in parts for one in part}
    return [found[number] for number in range(len(questions))]


def first_chains(chains: Chains, breadth: int) -> Chains:
    """The chains of a smaller breadth."""
    fields = {f.name: getattr(chains, f.name) for f in dataclasses.fields(chains)}
    return Chains(**{name: value[:breadth] for name, value in fields.items()})


def speed_of(solver: Solver, config: ExperimentConfig, questions: np.ndarray) -> float:
    """Puzzles a second, without compiling."""
    run(solver, config, questions[:1], _SLOTS)  # compiles
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        run(solver, config, questions, _SLOTS)
        seconds.append(time.perf_counter() - began)
    return len(questions) / min(seconds)


def accuracies(
    solver: Solver,
    several: Sequence[Chains],
    questions: np.ndarray,
    solved: np.ndarray,
    halting: str,
) -> dict[str, float]:
    """Share of puzzles solved, by selection."""
    found = {}
    for selection in SELECTIONS:
        if halting == 'max' and selection == 'first_halt':
            continue  # needs chains that stop
        chosen = [
            rollouts_choice.choose(
                selection, chains, solver.config.act,
                lambda answer, q=question: solver.task.is_valid(q, answer),
            )
            for chains, question in zip(several, questions, strict=True)
        ]  # fmt: skip
        found[selection] = float(solved[np.arange(len(solved)), chosen].mean())
    return found


def measure(
    solver: Solver,
    questions: np.ndarray,
    labels: np.ndarray,
    flags: argparse.Namespace,
    kept: Kept,
) -> list[Row]:
    """Runs what is not kept yet; returns the rows that the flags ask for."""
    for halting, depth in itertools.product(HALTINGS, flags.depths):
        missing = [b for b in flags.breadths if (halting, b, depth) not in kept.rows]
        if not missing:
            continue
        options = {'breadth': max(flags.breadths), 'select': 'residual'}
        config = experiment(solver, flags.noise, depth, halting, **options)
        found = run(solver, config, questions, min(len(questions), 128))
        for breadth in missing:
            several = [first_chains(one[0].chains, breadth) for one in found]
            solved = np.stack([
                (chains.predictions == label).all(1)
                for chains, label in zip(several, labels, strict=True)
            ])  # fmt: skip
            steps = float(np.mean([chains.steps.sum() for chains in several]))
            few = questions[: flags.timed]
            timed = {'breadth': breadth, 'select': 'vote'}
            speed = speed_of(solver, experiment(solver, flags.noise, depth, halting, **timed), few)
            together = 0.0
            if halting == 'adaptive' and breadth > 1:
                timed = {'breadth': breadth, 'select': 'first_halt', 'halt_together': True}
                first = experiment(solver, flags.noise, depth, halting, **timed)
                together = speed_of(solver, first, few)
            kept.add(
                Row(
                    halting, breadth, depth,
                    accuracies(solver, several, questions, solved, halting),
                    float(solved.any(1).mean()),
                    steps, rollouts.flops_of(config, steps) / 1e9, speed, together,
                )
            )  # fmt: skip
    wanted = itertools.product(HALTINGS, sorted(flags.breadths), sorted(flags.depths))
    return [kept.rows[key] for key in wanted]


def table(rows: Sequence[Row]) -> str:
    """Markdown, one line for each breadth and depth."""
    names = [name for name in SELECTIONS if name in rows[0].accuracy]
    heads = ['B', 'D', *names, 'any chain', 'ACT steps', 'GFLOPs', 'puzzles/s']
    heads += ['puzzles/s, all halt together'] if any(row.together for row in rows) else []
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for row in rows:
        cells = [str(row.breadth), str(row.depth)]
        cells += [f'{row.accuracy[name]:.1%}' for name in names]
        cells += [f'{row.any_chain:.1%}', f'{row.steps:.4g}', f'{row.gflops:.3g}']
        speeds = [row.speed, row.together][: len(heads) - len(cells)]
        cells += map(_speed_text, speeds)
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def _speed_text(speed: float) -> str:
    if not speed:
        return ''
    return f'{speed:,.0f}' if speed > 100 else f'{speed:.3g}'


def plot(rows: Sequence[Row], title: str, path: pathlib.Path) -> None:
    """Accuracy against depth: a panel for each breadth and halting, a line for each selection."""
    breadths = sorted({row.breadth for row in rows})
    figure = figures.new_figure(3.6 * len(breadths), 6.4)
    panels = figure.subplots(len(HALTINGS), len(breadths), sharey=True, sharex=True, squeeze=False)
    for (halting, text), line in zip(HALTINGS.items(), panels, strict=True):
        for axes, breadth in zip(line, breadths, strict=True):
            some = [row for row in rows if (row.halting, row.breadth) == (halting, breadth)]
            depths = [row.depth for row in some]
            for name, mark in zip(SELECTIONS, 'os^vDx', strict=True):
                if name in some[0].accuracy:
                    values = [100 * row.accuracy[name] for row in some]
                    axes.plot(depths, values, marker=mark, alpha=0.7, label=name)
            values = [100 * row.any_chain for row in some]
            axes.plot(depths, values, color='grey', linestyle=':', label='any chain')
            axes.set_xscale('log', base=2)
            axes.set_xticks(depths, [str(depth) for depth in depths])
            axes.set_ylim(-3, 103)
            axes.set_title(f'B = {breadth}, {text}', fontsize='small')
        line[0].set_ylabel('puzzles solved, %')
    for axes in panels[-1]:
        axes.set_xlabel('depth D, ACT steps')
    panels[-1][-1].legend(fontsize='small', loc='lower right')
    figure.suptitle(title)
    figures.save(figure, path)


def current_commit() -> str:
    """Short hash of the checkout, 'unknown' outside of one."""
    command = ['git', 'rev-parse', '--short', 'HEAD']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'unknown'


def digest(weights: Weights) -> str:
    """Short digest of a model."""
    found = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(jax.device_get(weights)):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def report(rows: Sequence[Row], flags: argparse.Namespace, count: int, commit: str) -> str:
    """The whole page."""
    parts = [
        f'## {text[0].upper()}{text[1:]}\n\n'
        + table([row for row in rows if row.halting == halting])
        for halting, text in HALTINGS.items()
    ]
    return f"""# Rollouts on the quickstart's model

    python -m experiments.rollouts_table{''.join(f' {one}' for one in sys.argv[1:])}

{datetime.date.today()}, commit {commit}, {os.cpu_count()} CPU cores. The model of
`make quickstart` (4x4 Sudoku; trained from a fixed start with 4 ACT steps and no noise) on {count}
unseen puzzles; breadth by noise of {flags.noise:g} on the high state before every ACT step. All
selections choose among the same chains; `any chain` is what a perfect choice would reach. ACT steps
and GFLOPs are those of a puzzle, all its chains together. Puzzles a second: over {flags.timed}
puzzles in {_SLOTS} slots, the faster of {_REPEATS} runs, without compiling. Where equal ACT steps
have other speeds, that is the load of the machine.

{parts[0]}
{parts[1]}
![Accuracy against depth](rollouts_quickstart.png)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.rollouts_table',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--workdir', default='runs/quickstart-seed0', help='folder of the run')
    parser.add_argument('--breadths', type=int, nargs='+', default=[1, 4, 16])
    parser.add_argument('--depths', type=int, nargs='+', default=[4, 16, 64])
    parser.add_argument('--noise', type=float, default=0.2, help='deviation of the noise')
    parser.add_argument('--puzzles', type=int, default=100, help='test puzzles')
    parser.add_argument('--timed', type=int, default=16, help='puzzles of the timed runs')
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('experiments/results'))
    flags = parser.parse_args(argv)
    common.quiet_orbax()
    commit = current_commit()
    try:
        solver = Solver.from_checkpoint(flags.workdir)
        dataset = records.load(solver.config.data.path, 'test')
        one = next(iter(dataset.sets.values()))
        chosen = np.arange(min(flags.puzzles, one.num_examples))
        examples = puzzles.stored_examples(one, dataset.metadata, chosen)
        questions, labels = (part.astype(np.int32) for part in examples)
        settings = {'commit': commit, 'weights': digest(solver.weights)}
        settings |= {name: getattr(flags, name) for name in ('noise', 'puzzles', 'timed')}
        kept = Kept(flags.out / 'rollouts_quickstart.json', settings)
        rows = measure(solver, questions, labels, flags, kept)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    text = report(rows, flags, len(questions), commit)
    print(text)
    files.write_text(flags.out / 'rollouts_quickstart.md', text)
    plot(rows, "Rollouts on the quickstart's model", flags.out / 'rollouts_quickstart.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
