"""How many devices a CPU is split into: chosen before JAX's backend starts.

XLA runs the small products of a small model hardly faster on two cores than on one. Split into
devices that share the rows of a batch, an evaluation uses them all: its rows meet nowhere, so each
device does with one thread. So evaluations choose. Their answers are those of one device up to
float32 rounding; ``--cpu-devices=1`` gives its bits.

A train step sums over rows. On several devices it adds in another order and waits in collectives,
which take threads, which make products slower: it is no faster. So a new run has one device unless
more are asked for (``--cpu-devices``), and keeps the number it began with (``mesh.cpu_devices`` of
its config.json).

Only commands choose; a process in which JAX already runs is left as it is.
"""

from collections.abc import Callable, Mapping
import dataclasses
import os
from pathlib import Path
import re
from typing import Any

from hrm_jax import files
from hrm_jax.config import ExperimentConfig, MeshConfig
from hrm_jax.errors import ConfigError, UsageError
from hrm_jax.run.workdir import CONFIG

# What pays was measured on two cores (experiments/results/cpu_devices.md): models of this width at
# most, parts of a batch that still have some rows, and no machine that would be left half idle.
_WIDEST = 512
_ROWS = 4
_AT_MOST = 8
# A collective holds a thread until every device has come. With as few threads as cores a device
# can wait for one that has no thread left; XLA then ends the process after 40 s. So many threads
# for each device are more than its collectives.
_THREADS = 8
_XLA_THREADS = '--xla_cpu_multi_thread_eigen'
_XLA_COUNT = re.compile(r'--xla_force_host_platform_device_count=(\d+)')


@dataclasses.dataclass(frozen=True)
class Choice:
    """How many devices, and why.

    Attributes:
      number: of devices; 0: nothing is stated, JAX makes one.
      why: a sentence for the log; empty: nothing to say.
      waits: whether the devices wait for each other in collectives.
    """

    number: int = 0
    why: str = ''
    waits: bool = True


def cores(
    environment: Mapping[str, str] = os.environ, quota: Path = Path('/sys/fs/cgroup/cpu.max')
) -> int:
    """Number of cores that this process may use: its affinity, and the quota of its container."""
    if hasattr(os, 'sched_getaffinity'):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    given = environment.get('OMP_NUM_THREADS', '')  # SLURM and containers state it so
    if given.isdecimal() and int(given) > 0:
        count = min(count, int(given))
    try:
        most, period = quota.read_text().split()
        count = min(count, max(1, int(most) // int(period)))
    except (OSError, ValueError):  # no control groups, or no quota ('max')
        pass
    return max(1, count)


def paying(config: ExperimentConfig, available: int) -> int:
    """The number of devices that an evaluation should have on so many cores; at least 1."""
    model = config.model
    # A large puzzle table would be whole on each device.
    if model.hidden_size > _WIDEST or model.has_large_table or waits(config):
        return 1
    number = _divisor(config.eval_batch_size, min(available, _AT_MOST), _ROWS)
    return number if 2 * number > available else 1


def waits(config: ExperimentConfig) -> bool:
    """Whether the devices of an evaluation would wait for each other (collectives)."""
    by_rows = dataclasses.replace(config.mesh, cpu_devices=0) == MeshConfig()
    alike = config.eval.halting == 'max' and not config.chooses_answers
    return not by_rows or not alike or config.model.lattice.on or config.model.chains > 1


def _divisor(size: int, most: int, rows: int = 1) -> int:
    """The largest number that a batch divides over, each part with so many rows."""
    return max((n for n in range(1, most + 1) if size % n == 0 and size // n >= rows), default=1)


def recorded(workdir: str | os.PathLike | None) -> int | None:
    """The number that a run has; 0: it began before there was one. None: there is no run."""
    if not workdir:
        return None
    path = Path(files.expanded(str(workdir))) / CONFIG
    if not path.is_file():
        return None
    values: Any = files.read_json(path, ConfigError, dict).get('mesh') or {}
    number = values.get('cpu_devices', 0) if isinstance(values, dict) else 0
    return number if type(number) is int and number >= 0 else 0


def choose(
    config: ExperimentConfig,
    asked: int | None = None,
    run: int | None = None,
    training: bool = True,
    alone: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> Choice:
    """Decides on the number of devices; starts nothing.

    Args:
      config: the experiment.
      asked: ``--cpu-devices``; None: not given.
      run: of the run that is resumed or evaluated (``recorded``); None: a new one.
      training: False: an evaluation, which takes as many as pay, or those of its run.
      alone: False: one of several processes, each with one device unless more are asked for.
      environment: of the process: ``XLA_FLAGS`` and ``JAX_NUM_CPU_DEVICES`` count as asked for.

    Raises:
      UsageError: two places state different numbers.
    """
    if not training:  # the configuration is that of the checkpoint's run
        run = config.mesh.cpu_devices or run
    waiting = training or not alone or waits(config)  # several processes do sum over devices
    if stated := asked_for(config, asked, run, environment):
        place, number = stated
        if run is None or not training or number == (run or 1):
            return Choice(number, waits=waiting)
        return Choice(
            number,
            f'note: {number} CPU devices ({place}); the run has had {run or 1}. Sums over rows are '
            f'added in another order from here on.',
        )
    if training:
        return Choice((1 if alone else 0) if run is None else run)
    if run is not None and run > 1:
        return Choice(_divisor(config.eval_batch_size, run), waits=waiting)
    available = cores(environment)
    number = paying(config, available) if alone else 1
    if number == 1:
        return Choice(run or 0)
    rows = config.eval_batch_size // number
    why = f'CPU devices: {number} on {available} cores, {rows:,} rows each'
    return Choice(number, why, waits=False)


def asked_for(
    config: ExperimentConfig, asked: int | None, run: int | None, environment: Mapping[str, str]
) -> tuple[str, int] | None:
    """Where somebody states a number, and which; or None. See ``choose``.

    Raises:
      UsageError: it is not positive, or two places state different numbers.
    """
    named = {} if asked is None else {'--cpu-devices': asked}
    if config.mesh.cpu_devices and config.mesh.cpu_devices != run:
        named.setdefault('--config.mesh.cpu_devices', config.mesh.cpu_devices)
    if match := _XLA_COUNT.search(environment.get('XLA_FLAGS', '')):
        named['XLA_FLAGS'] = int(match[1])
    elif environment.get('JAX_NUM_CPU_DEVICES', '').isdecimal():
        named['JAX_NUM_CPU_DEVICES'] = int(environment['JAX_NUM_CPU_DEVICES'])
    if len(set(named.values())) > 1:
        stated = ', '.join(f'{place} {number}' for place, number in named.items())
        raise UsageError(f'the number of CPU devices is stated differently: {stated}. Keep one.')
    for place, number in named.items():
        UsageError.require(number > 0, f'{place} must be 1 or more; got {number}.')
        return place, number
    return None


def apply(choice: Choice, environment: Any = os.environ) -> Choice:
    """Makes JAX split the CPU, unless its backend has started.

    One device is JAX's own way, in which nothing else is set.

    Args:
      choice: of ``choose``.
      environment: of the process.

    Returns:
      The choice, or one of no number where JAX runs already and keeps its devices.
    """
    import jax

    if choice.number < 1:
        return choice
    if not _XLA_COUNT.search(environment.get('XLA_FLAGS', '')):
        try:
            jax.config.update('jax_num_cpu_devices', choice.number)
        except RuntimeError:
            return Choice()
    if choice.number > 1:
        if not environment.get('NPROC'):
            more = cores(environment) + _THREADS * choice.number
            environment['NPROC'] = str(more if choice.waits else choice.number)
        # The devices are what shares the cores; their products need not.
        flags = environment.get('XLA_FLAGS', '')
        if _XLA_THREADS not in flags:
            environment['XLA_FLAGS'] = f'{flags} {_XLA_THREADS}=false'.strip()
    return choice


def settled(
    config: ExperimentConfig, choice: Choice, log: Callable[[str], None] = print
) -> ExperimentConfig:
    """The experiment with the number of devices that its run has; starts JAX's backend.

    Args:
      config: the experiment.
      choice: that was applied.
      log: prints why. Where JAX found a GPU or TPU nothing is said, and the number is 0.
    """
    import jax

    on_cpu = jax.default_backend() == 'cpu'
    if on_cpu and choice.why and jax.process_index() == 0:
        log(choice.why)
    mesh = dataclasses.replace(config.mesh, cpu_devices=choice.number if on_cpu else 0)
    return dataclasses.replace(config, mesh=mesh)
