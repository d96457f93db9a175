"""Weights & Biases offline, over a stop and a resume."""

from pathlib import Path
import signal
import time

from experiments.cluster_test import stores
from experiments.cluster_test.table import Failed, Row


def offline(data: Path, folder: Path) -> Row:
    """A run with W&B offline is stopped after its first save and resumed."""
    began, run, log = time.monotonic(), folder / 'wandb_run', folder / 'wandb.txt'
    words = [*stores.command(data, run), '--config.logging.wandb=true']
    environment = {'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true'}
    process = stores.start(words, log, environment)
    while not any((run / 'checkpoints').glob('[0-9]*')) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code = process.wait(stores.limit(300))
    if code not in (0, 128 + signal.SIGTERM):
        raise Failed(f'the stopped life ended with {code}; see {log}')
    if stores.start(words, log, environment).wait(stores.limit(600)):
        raise Failed(f'the resumed life failed; see {log}')
    stores.compare(data, folder, run)
    files = sorted(run.rglob('run-*.wandb'))
    if len(files) < 2 or not all(file.stat().st_size for file in files):
        raise Failed(f'{run} must have the W&B files of two lives; it has {len(files)}')
    names = {file.stem for file in files}
    if len(names) != 1:
        raise Failed(f'the lives must be one run of W&B; they are {sorted(names)}')
    return Row('W&B offline, stopped and resumed', f'{len(files)} files of one run', began)
