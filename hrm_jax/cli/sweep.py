"""Trains an experiment with several settings and seeds, one run after the other.

  hrm-jax sweep --config=quickstart --seeds 3 --set optimizer.lr=1e-4,3e-4 --workdir=runs/lr

trains six runs, each a normal run in a folder of its own (runs/lr/optimizer.lr=1e-4,seed=0), and
prints a table that compares them. Several --set give all combinations; values that contain commas
are separated by semicolons (--set 'eval.depth_multiples=2;2,4'). What else is given goes to every
run (--config.train.epochs=20). The same command resumes: runs that are done are left alone. Further
values or seeds may be added to a sweep, and several processes, also on several machines with a
shared folder, may work through one sweep together. ``hrm-jax compare runs/lr`` shows it again.
"""

import argparse
from collections.abc import Sequence
import functools
import os
import sys

from hrm_jax.cli import common
from hrm_jax.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Returns the flags of ``hrm-jax sweep``."""
    parser = common.parser('sweep', __doc__)
    parser.add_argument(
        '--config', required=True, help='the experiment: a file, a shipped name, or a run'
    )
    parser.add_argument('--workdir', type=common.path, required=True, help='folder of the sweep')
    parser.add_argument(
        '--seeds', type=int, default=1, help='number of seeds, from --first-seed on'
    )
    parser.add_argument('--first-seed', type=int, default=0, help='the first seed')
    parser.add_argument(
        '--set', action='append', metavar='KEY=VALUE,VALUE',
        help='a setting and the values that it takes; several: all combinations',
    )  # fmt: skip
    return parser


def sweep(flags: argparse.Namespace, rest: Sequence[str]) -> int:
    """Trains what the flags describe, prints the comparison, and returns the exit code."""
    from hrm_jax import files
    from hrm_jax.run import sweep as sweeps

    UsageError.require(flags.seeds > 0, f'--seeds must be at least 1; got {flags.seeds}.')
    UsageError.require(
        flags.first_seed >= 0, f'--first-seed must not be negative; got {flags.first_seed}.'
    )
    for flag in rest:
        UsageError.require(
            flag.startswith('--'), f'{flag!r} is not a flag; write --FLAG=VALUE in one word.'
        )
        UsageError.require(
            not flag.startswith(('--mode', '--checkpoint', '--config.seed', '--dry')),
            f'{flag} cannot be given to all runs of a sweep.',
        )
    settings = sweeps.read_settings(flags.set or ())
    seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
    runs = sweeps.runs_of(settings, seeds)
    common.check_arguments(['hrm-jax', f'--config={flags.config}', *rest, *runs[0].flags])
    folder = files.local_path(flags.workdir, '--workdir', UsageError)
    config = files.expanded(flags.config)
    config = os.path.abspath(config) if os.path.exists(config) else config
    log = functools.partial(print, flush=True)
    code = sweeps.execute(sweeps.Sweep(config, tuple(rest), runs), folder, log)
    from hrm_jax.run import comparison

    done = [folder / run.name for run in runs if sweeps.is_done(folder / run.name)]
    if done:
        compared = comparison.compare([comparison.read_run(place) for place in done])
        print(comparison.as_markdown(compared))
        print(f'hrm-jax compare {folder} --html FILE.html draws the curves.')
    return code


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command and exits."""
    given = sys.argv[1:] if argv is None else argv
    named = [one if one.startswith('--config.') else common.hyphenated([one])[0] for one in given]
    flags, rest = parser().parse_known_args(named)
    common.run(lambda: sweep(flags, rest))
