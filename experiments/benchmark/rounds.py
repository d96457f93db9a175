"""Rounds that alternate between the sides, and what else the machine did meanwhile.

Both sides run on the same cores with the same number of threads (``pin``), one after the other. A
round during which other programs used the machine says little about either side: it is measured
again, and left out where enough quiet ones were found.
"""

from collections.abc import Callable, Iterable
import dataclasses
import math
import os
from pathlib import Path
import statistics
import time

LIMIT = 0.15  # cores that others may use in a quiet round
AGAIN = 3  # times the asked number of rounds, at most
LEAST_QUIET = 2
_SHORTEST = 0.4  # seconds: the system counts in hundredths, so that shorter ones show nothing
_THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def pin(threads: int) -> int:
    """Keeps this process and those that it starts to some cores; call it before JAX starts.

    Args:
      threads: on as many cores; 0: all that the process may use.

    Returns:
      The number of threads.

    Raises:
      ValueError: there are fewer cores.
    """
    if not hasattr(os, 'sched_setaffinity'):
        found = threads or os.cpu_count() or 1
    else:
        cores = sorted(os.sched_getaffinity(0))
        found = threads or len(cores)
        if found > len(cores):
            raise ValueError(f'--threads must be at most the {len(cores)} cores here; got {found}.')
        os.sched_setaffinity(0, set(cores[-found:]))
    os.environ.update(dict.fromkeys(_THREADS, str(found)))
    return found


def _busy_seconds() -> float:
    """CPU seconds of the whole machine since it started; NaN where nobody counts them."""
    try:
        line = Path('/proc/stat').read_text().splitlines()[0]
    except OSError:
        return math.nan
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf('SC_CLK_TCK')


def _seconds_of(pid: int) -> float:
    """CPU seconds of one process, all threads; NaN where nobody counts them."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return math.nan
    return sum(map(int, fields[11:13])) / os.sysconf('SC_CLK_TCK')


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds per run of every side.

    Attributes:
      seconds: side -> of each round that counts; the same rounds for all sides.
      others: cores that other programs used during these rounds, mean; NaN: not known.
      dropped: rounds that were left out.
    """

    seconds: dict[str, list[float]]
    others: float
    dropped: int

    @property
    def under_load(self) -> bool:
        """Whether there were no quiet rounds, so that all count."""
        return self.others > LIMIT


def measure(
    sides: dict[str, Callable[[int], float]],
    rounds: int,
    seconds: float,
    pids: Iterable[int] = (),
) -> Measured:
    """Measures the sides in rounds that alternate between them.

    Args:
      sides: name -> function of a number of runs that returns the seconds they took.
      rounds: quiet ones to find.
      seconds: a side has as many runs in a round as fit in, at least one.
      pids: processes that work for a side, besides this one.
    """
    own = (os.getpid(), *pids)
    times = {}
    for name, run in sides.items():
        run(1)  # compiles, where it is not yet
        times[name] = max(1, int(seconds / max(run(1), 1e-6)))
    found: list[dict[str, float]] = []
    others: list[float] = []
    while len(found) < rounds or (
        sum(_is_quiet(x) for x in others) < rounds and len(found) < AGAIN * rounds
    ):
        began, busy, used = time.perf_counter(), _busy_seconds(), sum(map(_seconds_of, own))
        found.append({name: run(times[name]) / times[name] for name, run in sides.items()})
        spent = time.perf_counter() - began
        rest = (_busy_seconds() - busy) - (sum(map(_seconds_of, own)) - used)
        others.append(max(0.0, rest / spent) if spent >= _SHORTEST else math.nan)
    return choose(found, others)


def _is_quiet(others: float) -> bool:
    return not others > LIMIT  # where nobody knows, nothing is left out


def choose(found: list[dict[str, float]], others: list[float]) -> Measured:
    """Leaves out the rounds under load, unless hardly any would remain.

    Args:
      found: side -> seconds per run, of each round.
      others: cores that other programs used in each; NaN: not known.
    """
    kept = [i for i, x in enumerate(others) if _is_quiet(x)]
    if len(kept) < min(LEAST_QUIET, len(found)):
        kept = list(range(len(found)))
    known = [others[i] for i in kept if not math.isnan(others[i])]
    return Measured(
        {name: [found[i][name] for i in kept] for name in found[0]},
        statistics.fmean(known) if known else math.nan,
        len(found) - len(kept),
    )
