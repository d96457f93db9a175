"""Trains, resumes and evaluates.

  python -m hrm_jax.main --config=configs/quickstart.py --workdir=runs/first
  python -m hrm_jax.main --config=... --workdir=runs/first --mode=eval --checkpoint=best
  python -m hrm_jax.main --config=... --workdir=runs/first --config.optimizer.lr=3e-4 --dry_run
  python -m hrm_jax.main --config=configs/custom.py --workdir=runs/mine --config.data.source=my.csv

The same command again goes on from the last checkpoint in the workdir. SIGTERM or Ctrl-C
saves after the current step and exits (code 0 or 130); a second Ctrl-C exits at once.
"""

import tempfile

from absl import flags

from hrm_jax import build_data, command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this command, once per process."""
    if 'workdir' in FLAGS:
        return
    command_line.define_config_flag()
    flags.declare_key_flag('config')
    flags.DEFINE_string(
        'workdir', None, 'Folder of the run: checkpoints, metrics.jsonl, tensorboard/.'
    )
    flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'Train, or evaluate a checkpoint.')
    flags.DEFINE_string(
        'checkpoint',
        '',
        'A step, best, latest, or the folder of a checkpoint or of a run. With --mode=eval: what '
        'to evaluate (default: latest). With --mode=train: a checkpoint of this workdir to rewind '
        'to (later ones move to set_aside/), or one of another run whose weights a new run starts '
        'with. Without it training goes on from the latest checkpoint of the workdir.',
    )
    flags.DEFINE_bool(
        'dry_run', False, 'Print parameters, memory, steps and checkpoint size; write nothing.'
    )


def command() -> int:
    """Does what the flags say; returns the exit code."""
    config = command_line.read_config()
    from hrm_jax import compile_cache  # after the flags: --help should not wait for JAX

    compile_cache.enable()
    if FLAGS.dry_run:
        from hrm_jax import train

        with tempfile.TemporaryDirectory() as folder:
            train.dry_run(build_data.with_built_data(config, folder))
        return 0
    if config.data.source:
        config = build_data.with_built_data(config, command_line.workdir())
    if FLAGS.mode == 'eval':
        from hrm_jax import evaluate

        selector = FLAGS.checkpoint or 'latest'
        evaluate.evaluate_checkpoint(config, command_line.workdir(selector), selector)
        return 0
    from hrm_jax import train

    outcome = train.train(config, command_line.workdir(), FLAGS.checkpoint)
    return 130 if outcome.signal == 'SIGINT' else 0


def main() -> None:
    define_flags()
    command_line.run(command, __doc__)


if __name__ == '__main__':
    main()
