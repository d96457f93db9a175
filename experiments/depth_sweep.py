"""Accuracy against ACT steps: evaluates a checkpoint after every step up to a depth.

    python -m experiments.depth_sweep --workdir runs/sudoku_trm_mlp --max-steps 32

Works for every experiment, also far beyond the depth that it was trained with. One pass gives
all depths. Writes depth_sweep.md, .json and .png into --out (default: the workdir).
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
from pathlib import Path
import sys

import jax
import numpy as np

from hrm_jax import eval_step, files, partitioning
from hrm_jax.checkpoint import layout, store
from hrm_jax.cli import common
from hrm_jax.data import pipeline, records
from hrm_jax.errors import UserError
from hrm_jax.visualize import figures


def sweep(
    saved: store.SavedModel, max_steps: int, data: str = '', split: str = '', limit: int = 0
) -> dict[str, list[float]]:
    """Returns metric -> value after 1, 2, ... ``max_steps`` ACT steps, over all sets.

    Args:
      saved: the model and its configuration.
      max_steps: deepest evaluation.
      data, split: other data than the configuration's.
      limit: first examples of each set only; 0: all.
    """
    config = saved.config
    where = dataclasses.replace(config.data, path=data or config.data.path)
    config = dataclasses.replace(config, data=where)
    dataset = records.load(where.path, split or config.eval.split, where.format)
    mesh = partitioning.make_mesh()
    weights = saved.inference_weights(config.eval.use_ema)
    weights = jax.device_put(weights, partitioning.replicated(mesh))
    run = eval_step.make_depth_sweep(config, mesh, max_steps)
    totals, first = None, 0
    for _, batch, _ in pipeline.eval_batches(dataset, config.eval_batch_size, max_examples=limit):
        sums = jax.device_get(run(weights, partitioning.put_global(batch, mesh), first))
        first += config.eval_batch_size
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    names = ('exact_accuracy', 'accuracy', 'lm_loss', 'q_halt_accuracy')
    return {name: (getattr(totals, name) / totals.count).tolist() for name in names}


def table(values: dict[str, list[float]], trained: int) -> str:
    """Markdown, one line per depth."""
    lines = [f'| ACT steps | {" | ".join(values)} |', '|---' * (len(values) + 1) + '|']
    for number, row in enumerate(zip(*values.values(), strict=True), start=1):
        mark = ' (trained)' if number == trained else ''
        lines.append(f'| {number}{mark} | {" | ".join(f"{value:.4f}" for value in row)} |')
    return '\n'.join(lines) + '\n'


def plot(values: dict[str, list[float]], trained: int, title: str, path: Path) -> None:
    """Exact and cell accuracy against ACT steps."""
    figure = figures.new_figure(6, 4)
    axes = figure.subplots()
    for name in ('exact_accuracy', 'accuracy'):
        steps = range(1, len(values[name]) + 1)
        axes.plot(steps, values[name], marker='.', label=name.replace('_', ' '))
    axes.axvline(trained, color='grey', linestyle=':', label='trained depth')
    axes.set(xlabel='ACT steps', ylabel='accuracy', title=title)
    axes.legend()
    figures.save(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps and writes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.depth_sweep',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--workdir', type=Path, required=True, help='folder of the run')
    parser.add_argument('--checkpoint', default='latest', help='a step, best or latest (latest)')
    parser.add_argument('--max-steps', type=int, default=0, help='(twice the trained depth)')
    parser.add_argument('--data', default='', help='data set (that of the run)')
    parser.add_argument('--split', default='', help='split (that of the run)')
    parser.add_argument('--max-examples', type=int, default=0, help='of each set (all)')
    parser.add_argument('--out', type=Path, help='folder to write to (the workdir)')
    args = parser.parse_args(argv)
    common.quiet_orbax()
    try:
        saved = store.read_model(layout.resolve(args.checkpoint, args.workdir))
        trained = saved.config.act.halt_max_steps
        max_steps = args.max_steps or 2 * trained
        values = sweep(saved, max_steps, args.data, args.split, args.max_examples)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    out = args.out or args.workdir
    text = table(values, trained)
    print(text)
    files.write_text(out / 'depth_sweep.md', text)
    content = {'step': saved.step, 'trained_depth': trained, 'metrics': values}
    files.write_text(out / 'depth_sweep.json', json.dumps(content, indent=1) + '\n')
    plot(values, trained, saved.config.name, out / 'depth_sweep.png')
    print(f'wrote {out / "depth_sweep.md"}, .json and .png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
