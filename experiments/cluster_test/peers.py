"""Two processes of one run, one of them killed during a save."""

from pathlib import Path
import random
import signal
import time

from experiments.cluster_test import stores
from experiments.cluster_test.table import Failed, Row
from experiments.fault_drill import lives
from hrm_jax.errors import RESTART

# The survivor of a killed process: a restart can bring it back, whatever noticed it first.
ALLOWED = (0, -signal.SIGKILL, RESTART, -signal.SIGABRT)


def killed_in_saves(data: Path, folder: Path, kills: int, rng: random.Random) -> Row:
    """Kills one of two processes during saves; the end must be that of an undisturbed pair."""
    began, quiet, run = time.monotonic(), folder / 'pair_undisturbed', folder / 'pair'
    heartbeat, start = min(100, stores.limit(10)), stores.limit(60)
    extra = [f'--heartbeat-timeout={heartbeat}', f'--start-timeout={start}']
    first = lives.start([*stores.command(data, quiet), *extra], 2, 2, folder / 'logs_pair_quiet')
    if any(lives.end_of(first, stores.limit(600))):
        raise Failed('the undisturbed pair failed')
    hits, number, codes = 0, 0, set()
    while True:
        logs = folder / f'logs_pair_{number}'
        number += 1
        pair = lives.start([*stores.command(data, run), *extra], 2, 2, logs)
        hit = -1
        if hits < kills and lives.wait_for_moment('saving', pair, logs, run, 0.0):
            time.sleep(rng.uniform(0, 0.1))
            hit = rng.randrange(2)
            pair[hit].kill()
            hits += 1
        ended = lives.end_of(pair, stores.limit(300))
        codes |= {code for k, code in enumerate(ended) if k != hit}
        if any(code not in ALLOWED for code in ended):
            raise Failed(f'a life ended with {ended}; see {logs}')
        if hit < 0 and not any(ended):
            break
    if stores.metrics_of(run) != stores.metrics_of(quiet):
        raise Failed('metrics.jsonl is not that of the undisturbed pair')
    text = f'{hits} kills, {number} lives, same bytes, codes of the survivors {sorted(codes)}'
    return Row('2 processes, one killed during saves', text, began)
