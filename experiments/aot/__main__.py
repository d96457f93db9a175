"""Compiles the train step for machines that are not at hand, and prints what it needs there.

  make aot AOT='--config=configs/sudoku_extreme_1k.py --target=v5e:2x4'
  make aot AOT='--config=configs/arc1.py --config.model.remat=True --target=h100:8'

Targets: v5e:2x4, v5e:16x16, v6e:16x16, v5p:2x2x2, h100:8, and other sizes of these. The mesh is
that of the configuration (--config.mesh.fsdp=8). No data set is needed: the sizes of the known
ones are built in, others come with --config.model.vocab_size, .seq_len, .num_puzzle_identifiers.
Prints FLOPs, bytes, memory per device and the collectives; exit code 1 when it does not fit.
--roofline=STEM adds the least time of a step and the pieces that hold it up to STEM.md; --text=FILE
keeps the compiled program. --config.model.attention=cudnn on an H100 also needs
nvidia-cudnn-cu13, nvidia-cublas and nvidia-cuda-nvrtc in the environment (1.6 GB).
"""

from collections.abc import Sequence
import datetime
import os
from pathlib import Path
import subprocess
import sys

from absl import flags

from hrm_jax import files
from hrm_jax.cli import common
from hrm_jax.errors import UsageError

FLAGS = flags.FLAGS
ROOT = Path(__file__).resolve().parents[2]


def define_flags() -> None:
    """Defines the flags of this command, once per process."""
    if 'target' in FLAGS:
        return
    common.define_config_flag()
    flags.declare_key_flag('config')
    flags.DEFINE_string('target', None, 'The machine, e.g. v5e:2x4 or h100:8.')
    flags.DEFINE_string(
        'output', None, 'Adds the result to OUTPUT.json and writes OUTPUT.md from all of them.'
    )
    flags.DEFINE_string(
        'roofline', None, 'Adds the bounds of the program to ROOFLINE.json and ROOFLINE.md.'
    )
    flags.DEFINE_string('text', None, 'Writes the compiled program (optimized HLO) there.')


def _without_hardware() -> None:
    # The devices of this machine are not used: nothing runs, and a TPU must not be claimed.
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['JAX_SKIP_CUDA_CONSTRAINTS_CHECK'] = '1'  # no driver to compare with
    os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'
    # libtpu asks for the machine it is on, at length, unless it is set.
    os.environ['TPU_SKIP_MDS_QUERY'] = '1'
    os.environ['TPU_WORKER_HOSTNAMES'] = 'localhost'
    os.environ['TPU_ACCELERATOR_TYPE'] = 'v5litepod-8'


def _about() -> dict[str, str]:
    """Date, versions, commit and command, for the records."""
    import importlib.metadata

    names = ('jax', 'flax', 'libtpu', 'jax-cuda13-plugin')
    found = {
        name: importlib.metadata.version(name)
        for name in names
        if any(importlib.metadata.distributions(name=name))
    }

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ['git', *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git('rev-parse', '--short', 'HEAD') or 'no commit'
    if git('status', '--porcelain', '--untracked-files=no', 'hrm_jax', 'configs'):
        commit += ' and changes'
    own = ('--output', '-output', '--roofline', '-roofline', '--text', '-text')
    arguments = ' '.join(argument for argument in sys.argv[1:] if not argument.startswith(own))
    return {
        'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
        'versions': ', '.join(f'{name} {version}' for name, version in found.items()),
        'commit': commit,
        'command': f"make aot AOT='{arguments}'",
    }


def command() -> int:
    """Compiles what the flags name; returns the exit code."""
    if FLAGS.target is None:
        raise UsageError('give the machine with --target=NAME, e.g. v5e:2x4 or h100:8')
    config = common.read_config()
    _without_hardware()
    from experiments import dataset_sizes
    from experiments.aot import build, report, roofline, targets  # they import JAX

    target = targets.find(FLAGS.target)
    config = dataset_sizes.fill_in(config)
    print(f'compiling for {target.name} ...', flush=True)
    found = build.compile_for(config, target)
    print(report.describe(config, target, found))
    if FLAGS.text:
        files.write_text(FLAGS.text, found.text)
    if FLAGS.output:
        report.add(Path(FLAGS.output), report.record(config, target, found, _about()))
    if FLAGS.roofline and found.text:
        entry = roofline.record(config, target, found, _about())
        print(f'\n{roofline.describe(entry)}')
        roofline.add(Path(FLAGS.roofline), entry)
    return 0 if report.fits(target, found) else 1


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
      argv: with the name of the program first; None: that of this process.
    """
    define_flags()
    common.parse(sys.argv if argv is None else argv, __doc__, own_flag='target')
    common.run(command)


if __name__ == '__main__':
    main()
