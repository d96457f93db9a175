"""A trained path finder on a random board, step by step.

    python -m experiments.pathfinding show --workdir runs/pathfinding_hl --size 20 --seed 3

Draws the board, answers it, prints question and answer, and writes steps.gif (one frame after
every high-level update), steps.png (the same side by side) and answer.png into --out.
"""

import argparse
from collections.abc import Sequence
import dataclasses
from pathlib import Path
import random
import sys

import numpy as np

from data_builders import pathfinding
from hrm_jax import files
from hrm_jax.checkpoint import layout, store
from hrm_jax.cli import common
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError, UserError
from hrm_jax.tasks import PathFinding
from hrm_jax.visualize import cycles, paths


def sized(config: ExperimentConfig, size: int) -> ExperimentConfig:
    """The experiment for boards of ``size`` rows; other sizes than trained need free positions.

    Raises:
      ConfigError: the checkpoint is of another task, or knows one size only.
    """
    model = config.model
    if model.vocab_size != len(PathFinding.symbols):
        raise ConfigError(
            f'the checkpoint must be a path finder, with {len(PathFinding.symbols)} tokens; it has '
            f'{model.vocab_size}.'
        )
    bound = model.uses_learned_positions or model.block != 'attention'
    if bound and size * size != model.seq_len:
        raise ConfigError(
            f'this model was made for boards of {model.seq_len} cells; got --size={size}. Only '
            f'models with attention and no learned positions take other sizes.'
        )
    return dataclasses.replace(config, model=dataclasses.replace(model, seq_len=size * size))


def main(argv: Sequence[str] | None = None) -> int:
    """Answers a board and draws it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.pathfinding show',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--workdir', type=Path, required=True, help='folder of the run')
    parser.add_argument('--checkpoint', default='best', help='a step, best or latest (best)')
    parser.add_argument('--size', type=int, default=0, help='rows of the board (as trained)')
    parser.add_argument('--wall-prob', type=float, default=0.3, help='share of walls (0.3)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the board (0)')
    parser.add_argument('--segments', type=int, default=0, help='ACT steps (as evaluated)')
    parser.add_argument('--out', type=Path, default=Path('path'), help='folder to write to (path)')
    args = parser.parse_args(argv)
    common.quiet_orbax()
    try:
        saved = store.read_model(layout.resolve(args.checkpoint, args.workdir))
        size = args.size or round(saved.config.model.seq_len**0.5)
        config = sized(saved.config, size)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    board, answer, _ = pathfinding.draw_board(size, args.wall_prob, random.Random(args.seed))
    weights = saved.inference_weights(config.eval.use_ema)
    segments = config.with_eval_steps(args.segments).eval_steps
    seen = cycles.frames(config, weights, np.array([board]), np.zeros(1), segments)[:, 0]
    right = np.array_equal(seen[-1], answer)
    wrong = int((seen[-1] != np.array(answer)).sum())
    verdict = 'right' if right else f'wrong in {wrong} of {size * size} cells'
    print(f'question:\n{paths.board_text(np.array(board))}\n')
    print(f'answer after {segments} segments ({verdict}):\n{paths.board_text(seen[-1])}')
    pictures = {
        'steps.gif': paths.animation(seen),
        'steps.png': paths.strip(seen),
        'answer.png': paths.picture(seen[-1]),
    }
    for name, content in pictures.items():
        with files.replacing(args.out / name) as path:
            path.write_bytes(content)
    print(f'\nwrote {", ".join(str(args.out / name) for name in pictures)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
