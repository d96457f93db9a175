"""FLOPs of the equivariant models: by hand, of the traced program, of the optimized one.

    python -m experiments.flop_counts --optimized --output experiments/results/equivariant_flops.md

Nothing is run. Tracing takes seconds; --optimized also has XLA compile every program for the CPU,
with its cycles unrolled, which takes minutes.
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
from experiments.aot import pieces
from hrm_jax import partitioning, train_state, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.files import write_text
from hrm_jax.model import flops, hrm

NAMES = (
    'sudoku_digit_field_128', 'sudoku_digit_field', 'sudoku_digit_field_256', 'sudoku_se_rrm',
    'sudoku_ldt', 'sudoku9_cpu',
)  # fmt: skip
_COLUMNS = ('configuration', 'program', 'GFLOP by hand', 'traced / by hand')
_OPTIMIZED = ('optimized / by hand', 'GFLOP by XLA', 'elementwise share')


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
    programs = [each for each in found if isinstance(each, core.ClosedJaxpr | core.Jaxpr)]
    return [getattr(each, 'jaxpr', each) for each in programs]  # one class since JAX 0.11


def optimized_flops(text: str) -> int:
    """Multiplications and additions of the matrix products of an optimized program.

    Args:
      text: of the compiled program, in HLO.
    """
    return round(sum(one.times * one.flops for one in pieces.pieces(text)))


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted program of an experiment.

    Attributes:
      call, arguments: it, and the arrays or their shapes.
      by_hand: its FLOPs, for the whole batch.
    """

    call: Any
    arguments: tuple[Any, ...]
    by_hand: float

    def traced(self) -> int:
        """FLOPs of the traced program's matrix products."""
        return traced_flops(self.call, *self.arguments)

    def optimized(self) -> tuple[int, float]:
        """FLOPs of the optimized program's matrix products, and of all it does as XLA counts."""
        compiled = self.call.lower(*self.arguments).compile()
        return optimized_flops(compiled.as_text()), compiled.cost_analysis()['flops']


def programs(config: ExperimentConfig) -> dict[str, Program]:
    """An ACT step at inference and the train step of an experiment, by name."""
    mesh = partitioning.make_mesh(jax.devices()[:1])
    state = train_state.abstract(config, mesh)
    rows, model = config.train.global_batch_size, config.inference_model
    inputs = jax.ShapeDtypeStruct((rows, model.seq_len), jnp.int32)
    key = jax.random.key(0) if model.lattice.on else None  # its steps draw
    forward = jax.jit(
        lambda weights, latent, inputs: hrm.act_step(model, weights, latent, inputs, None, key)
    )
    step = train_step.make_train_step(config, 100, mesh)
    by_hand = flops.train_step(config.model, config.act, config.loss)
    return {
        'forward': Program(
            forward, (state.weights, state.carry.latent, inputs), rows * flops.act_step(model)
        ),
        'train step': Program(step, (state, state.carry.batch), rows * by_hand),
    }


def experiment(name: str) -> ExperimentConfig:
    """A shipped experiment with the sizes of its data, unrolled.

    It has one row; with answer anchors four, because a quarter of the rows is anchored.
    """
    config = ExperimentConfig.from_dict(importlib.import_module(f'configs.{name}').get_config())
    config = dataset_sizes.fill_in(config)
    rows = 4 if config.loss.anchor_weight else 1
    train = dataclasses.replace(config.train, global_batch_size=rows)
    model = dataclasses.replace(config.model, attention='xla', unroll_cycles=True)
    return dataclasses.replace(config, model=model, train=train)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--names', nargs='+', default=NAMES, help='experiments of configs/')
    parser.add_argument('--optimized', action='store_true', help='compile, too')
    parser.add_argument('--output', type=Path, help='Markdown file to write')
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    columns = _COLUMNS + (_OPTIMIZED if args.optimized else ())
    lines = [f'| {" | ".join(columns)} |', f'|{" --- |" * len(columns)}']
    for name in args.names:
        config = experiment(name)
        rows = config.train.global_batch_size
        for kind, program in programs(config).items():
            by_hand = program.by_hand
            cells = [name, kind, f'{by_hand / rows / 1e9:.3f}', f'{program.traced() / by_hand:.6f}']
            if args.optimized:
                dots, everything = program.optimized()
                cells += [f'{dots / by_hand:.6f}', f'{everything / rows / 1e9:.3f}']
                cells.append(f'{1 - dots / everything:.1%}')
            lines.append(f'| {" | ".join(cells)} |')
            print(lines[-1], flush=True)
    if args.output:
        write_text(args.output, _INTRODUCTION + '\n'.join(lines) + '\n')


_INTRODUCTION = f"""\
# FLOPs of the equivariant models

Multiplications and additions of the matrix products, for each row of the batch, at the sizes of the
configurations; one row, or four with answer anchors, of which a quarter of the rows has one. By
hand: `hrm_jax/model/flops.py`. Traced: the `dot_general` operations of the program that JAX traces,
those in loops as often as they turn. Optimized: the `dot` operations that are left after XLA's
compiler for CPUs, the cycles unrolled; beside them XLA's count of everything, and the share of what
is no matrix product. JAX {jax.__version__}.

    python -m experiments.flop_counts --optimized --output experiments/results/equivariant_flops.md

"""


if __name__ == '__main__':
    main()
