"""Runs small trainings on real stores and schedulers, disturbs them, and prints what held.

    make cluster-test
    python -m experiments.cluster_test --workdir=runs/cluster_test --kills=40

Scenarios: bits of a checkpoint flipped; s3://, which is refused; gs:// (a local server of its JSON
API) with kills during saves, with 503 and 403, and a new machine with an empty workdir; two
processes with kills of one during saves; W&B offline with a resume; SLURM on this host (two nodes;
installed where it is missing, which needs root and Debian's apt-get). What this host cannot run is
skipped and named. Exit code 0 if everything else holds.
"""

import argparse
from collections.abc import Callable
import importlib.util
import os
from pathlib import Path
import random
import shutil
import sys
import time

from experiments.cluster_test import flips, peers, stores, tracking
from experiments.cluster_test import slurm as slurm_lib
from experiments.cluster_test.table import Failed, Row, Skipped, markdown
from experiments.fault_drill.lives import DrillError
from hrm_jax.cli import common

NAMES = (
    'flips', 's3', 'gcs-503', 'gcs-403', 'gcs-new', 'wandb', 'slurm', 'gcs-kills', 'peers',
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Returns the flags of the test."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.cluster_test', description=__doc__,
        formatter_class=common.HelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add('--workdir', type=Path, default=Path('runs/cluster_test'), help='written anew')
    add('--kills', type=int, default=40, help='kills during saves, of each kind')
    add('--flips', type=int, default=400, help='bits of a checkpoint that are flipped')
    add('--patience', type=float, default=1.0, help='factor of all limits of time')
    add('--seed', type=int, default=0, help='seed of the moments')
    add('--only', default=','.join(NAMES), help='names of scenarios, separated by commas')
    return parser


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skipped(f'{package} is not installed')


def scenarios(
    flags: argparse.Namespace, data: Path, folder: Path
) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Returns name -> package that it needs, and the scenario."""
    rng = random.Random(flags.seed)
    return {
        'flips': ('jax', lambda: flips.flipped(data, folder, flags.flips, rng)),
        's3': ('jax', lambda: stores.refused_scheme(data, folder)),
        'gcs-kills': ('gcsfs', lambda: stores.killed_in_saves(data, folder, flags.kills, rng)),
        'gcs-503': ('gcsfs', lambda: stores.refused_for_a_while(data, folder, 503, 20)),
        'gcs-403': ('gcsfs', lambda: stores.refused_for_a_while(data, folder, 403, 20)),
        'gcs-new': ('gcsfs', lambda: stores.a_new_machine(data, folder)),
        'peers': ('jax', lambda: peers.killed_in_saves(data, folder, flags.kills, rng)),
        'wandb': ('wandb', lambda: tracking.offline(data, folder)),
        'slurm': ('jax', lambda: slurm_lib.requeued(data, folder)),
    }  # fmt: skip


def run(flags: argparse.Namespace) -> int:
    """Runs the scenarios; returns the exit code."""
    stores.be_patient(flags.patience)
    folder = flags.workdir.absolute()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'compiled'))
    data = stores.make_data(folder)
    rows: list[Row] = []
    known = scenarios(flags, data, folder)
    for name in flags.only.split(','):
        package, scenario = known[name]
        began = time.monotonic()
        try:
            _need(package)
            rows.append(scenario())
        except Skipped as error:
            rows.append(Row(name, str(error), began, 'skipped'))
        except (Failed, DrillError) as error:
            rows.append(Row(name, str(error), began, 'FAILS'))
        print(markdown(rows[-1:]).splitlines()[-1], flush=True)
    print('\n' + markdown(rows))
    (folder / 'table.md').write_text(markdown(rows) + '\n')
    return int(any(row.result == 'FAILS' for row in rows))


if __name__ == '__main__':
    sys.exit(run(parser().parse_args()))
