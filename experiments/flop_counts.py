"""FLOPs of the equivariant models: counted by hand, and in the program that is traced.

    python -m experiments.flop_counts --output experiments/results/equivariant_flops.md

Nothing is compiled or run, so that the published sizes take seconds. What XLA makes of such a
program is counted in tests/equivariant_test.py, at small sizes.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import importlib
import math
from pathlib import Path
import sys
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp

from experiments import dataset_sizes
from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.files import write_text
from hrm_jax.model import flops, hrm

NAMES = (
    'sudoku_digit_field_128', 'sudoku_digit_field', 'sudoku_digit_field_256', 'sudoku_se_rrm',
)  # fmt: skip
_COLUMNS = ('configuration', 'program', 'GFLOP by hand', 'GFLOP traced', 'traced / by hand')


def traced_flops(program: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications and additions of the matrix products of a program, loops included.

    Args:
      program: not or already jitted.
      *arguments: arrays or their shapes.
    """
    return _count(jax.make_jaxpr(program)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(_count(each) for each in _programs_in(equation))
        match equation.primitive.name:
            case 'dot_general':
                (summed, _), _ = equation.params['dimension_numbers']
                left = equation.invars[0].aval.shape
                products = math.prod(equation.outvars[0].aval.shape)
                total += 2 * products * math.prod(left[axis] for axis in summed)
            case 'scan':
                total += equation.params['length'] * inner
            case 'while' | 'cond' if inner:
                raise NotImplementedError('matrix products in a loop of unknown length')
            case _:
                total += inner
    return total


def _programs_in(equation: Any) -> list[Any]:
    found = jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda value: isinstance(value, core.ClosedJaxpr | core.Jaxpr),
    )
    closed = [each.jaxpr for each in found if isinstance(each, core.ClosedJaxpr)]
    return closed + [each for each in found if isinstance(each, core.Jaxpr)]


def counts(config: ExperimentConfig) -> dict[str, tuple[int, int]]:
    """FLOPs of the whole batch by hand and traced, by the program's name."""
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.abstract(config, mesh)
    rows, model = config.train.global_batch_size, config.inference_model
    inputs = jax.ShapeDtypeStruct((rows, model.seq_len), jnp.int32)
    key = jax.random.key(0) if model.lattice.on else None  # its steps draw
    forward = traced_flops(
        lambda weights, latent, inputs: hrm.act_step(model, weights, latent, inputs, None, key),
        state.weights, state.carry.latent, inputs,
    )  # fmt: skip
    step = traced_flops(train_step.make_train_step(config, 100, mesh), state, state.carry.batch)
    by_hand = flops.train_step(config.model, config.act, config.loss)
    return {
        'forward': (rows * flops.act_step(config.model), forward),
        'train step': (rows * by_hand, step),
    }


def experiment(name: str) -> ExperimentConfig:
    """A shipped experiment with the sizes of its data and four rows, one of which is anchored."""
    config = ExperimentConfig.from_dict(importlib.import_module(f'configs.{name}').get_config())
    config = dataset_sizes.fill_in(config)
    train = dataclasses.replace(config.train, global_batch_size=4)
    model = dataclasses.replace(config.model, attention='xla')
    return dataclasses.replace(config, model=model, train=train)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--names', nargs='+', default=NAMES, help='experiments of configs/')
    parser.add_argument('--output', type=Path, help='Markdown file to write')
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    lines = [f'| {" | ".join(_COLUMNS)} |', f'|{" --- |" * len(_COLUMNS)}']
    for name in args.names:
        config = experiment(name)
        rows = config.train.global_batch_size
        for program, (by_hand, traced) in counts(config).items():
            values = (by_hand / rows / 1e9, traced / rows / 1e9, traced / by_hand)
            cells = (name, program, f'{values[0]:.3f}', f'{values[1]:.3f}', f'{values[2]:.6f}')
            lines.append(f'| {" | ".join(cells)} |')
            print(lines[-1], flush=True)
    if args.output:
        write_text(args.output, _INTRODUCTION + '\n'.join(lines) + '\n')


_INTRODUCTION = f"""\
# FLOPs of the equivariant models

Multiplications and additions of the matrix products, for each row of the batch, at the sizes of the
configurations; the train step of the digit fields with its answer anchors. By hand:
`hrm_jax/model/flops.py`. Traced: the `dot_general` operations of the program that JAX traces, those
in loops as often as they turn. JAX {jax.__version__}.

    python -m experiments.flop_counts --output experiments/results/equivariant_flops.md

"""


if __name__ == '__main__':
    main()
