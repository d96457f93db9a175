"""Trains, resumes and evaluates.

  python -m hrm_jax.main --config=configs/quickstart.py --workdir=runs/first
  python -m hrm_jax.main --workdir=runs/first --mode=eval --checkpoint=best
  python -m hrm_jax.main --config=... --workdir=runs/other --config.optimizer.lr=3e-4 --dry-run
  python -m hrm_jax.main --config=configs/custom.py --workdir=runs/mine --config.data.source=my.csv

``hrm-jax train`` and ``hrm-jax eval`` do the same. The same command again resumes from the last
checkpoint in the workdir; so does --workdir alone, with the configuration in its config.json.
SIGTERM, Ctrl-C or a closed terminal save after the current step and exit (code 143, 130 or 129); a
second Ctrl-C exits at once.

Several processes (hosts of a TPU pod, tasks of SLURM or Open MPI): start the same command in
each. --distributed selects it; experiments/launch has recipes.
"""

from collections.abc import Sequence
import os
from pathlib import Path
import sys
import tempfile
from typing import TYPE_CHECKING

from absl import flags

from hrm_jax.cli import common

if TYPE_CHECKING:
    from hrm_jax.config import ExperimentConfig
    from hrm_jax.run import cpu_devices

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command, once per process."""
    if 'workdir' in FLAGS:
        return
    common.define_config_flag()
    flags.declare_key_flag('config')
    flags.DEFINE_string(
        'workdir', None, 'Folder of the run: checkpoints, metrics.jsonl, tensorboard/.'
    )
    flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'Train, or evaluate a checkpoint.')
    flags.DEFINE_string(
        'checkpoint',
        '',
        'A step, best, latest, or the folder of a checkpoint or of a run. With --mode=eval: what '
        'to evaluate, of any format (default: latest). With --mode=train: a checkpoint of this '
        'workdir to rewind to (later ones move to set_aside/), or one of another run whose weights '
        'a new run starts with. Without it training resumes from the latest checkpoint of the '
        'workdir.',
    )
    flags.DEFINE_bool(
        'accept_data_change', False,
        'Resume although the training set is another one than the checkpoint was trained on.',
    )  # fmt: skip
    flags.DEFINE_bool(
        'dry_run', False, 'Print parameters, memory, steps, checkpoint size, time; write nothing.'
    )
    flags.DEFINE_integer(
        'time_steps', None,
        'With --dry-run: train steps to time for an estimate of the duration; 0: none (default: 3 '
        'where they are quick).', lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer(
        'cpu_devices', None,
        'Devices that a CPU is split into (default: those of the run, one of a new run, as many as '
        'pay of an evaluation). 1: the numbers of one device, bit for bit.', lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum(
        'distributed', 'auto', ['auto', 'on', 'off'],
        'Whether this is one of several processes: auto (SLURM, Open MPI, GKE and the three flags '
        'below show it), on (TPU pods over ssh too), off.',
    )  # fmt: skip
    flags.DEFINE_string('coordinator_address', None, 'HOST:PORT of process 0.')
    flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
    flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')
    flags.DEFINE_integer(
        'start_timeout', 300,
        'Seconds that the processes wait for each other before the first step.', lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_integer(
        'heartbeat_timeout', 100,
        'Seconds after which a process that no longer answers ends the others.', lower_bound=1,
    )  # fmt: skip


def _cpu_devices(config: 'ExperimentConfig') -> 'cpu_devices.Choice':
    """Splits the CPU as the flags, the run or the model want it."""
    from hrm_jax.run import cpu_devices, distributed

    several = FLAGS.distributed == 'on' or FLAGS.num_processes or distributed.is_wanted(os.environ)
    choice = cpu_devices.choose(
        config,
        FLAGS.cpu_devices,
        cpu_devices.recorded(FLAGS.workdir),
        training=FLAGS.mode == 'train',
        alone=FLAGS.distributed == 'off' or not several,
    )
    return cpu_devices.apply(choice)


def command() -> int:
    """Does what the flags ask for; returns the exit code."""
    config = common.read_config()
    if not FLAGS['verbosity'].present:
        common.quiet_orbax()
    # After the flags: --help should not wait for JAX.
    from hrm_jax.run import backend, build_data, cpu_devices, distributed, kept_memory

    kept_memory.keep(config)
    backend.enable_compilation_cache()
    devices = _cpu_devices(config)
    distributed.start(
        FLAGS.distributed,
        FLAGS.coordinator_address,
        FLAGS.num_processes,
        FLAGS.process_id,
        FLAGS.start_timeout,
        FLAGS.heartbeat_timeout,
    )
    config = cpu_devices.settled(config, devices)
    if FLAGS.dry_run:
        from hrm_jax.run import estimate

        with tempfile.TemporaryDirectory() as folder:
            built = build_data.with_built_data(config, Path(folder))
            estimate.dry_run(built, time_steps=FLAGS.time_steps)
        return 0
    if config.data.source:
        with distributed.first_goes_first('data built'):
            config = build_data.with_built_data(config, common.workdir())
    if FLAGS.mode == 'eval':
        from hrm_jax import eval_checkpoint

        selector = FLAGS.checkpoint or 'latest'
        eval_checkpoint.evaluate_checkpoint(config, common.workdir(selector), selector)
        return 0
    from hrm_jax import train

    outcome = train.train(
        config,
        common.workdir(),
        FLAGS.checkpoint,
        start_timeout=FLAGS.start_timeout,
        accept_data_change=FLAGS.accept_data_change,
    )
    return common.EXIT_CODES.get(outcome.signal, 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
      argv: with the name of the program first; None: that of this process.
    """
    define_flags()
    common.parse(sys.argv if argv is None else argv, __doc__)
    common.run(command)


if __name__ == '__main__':
    main()
