"""The tests of a trained run, in a process of its own: ``python -m experiments.study.tests``."""

from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

from hrm_jax import eval_checkpoint, files
from hrm_jax.checkpoint import layout, store
from hrm_jax.cli import common
from hrm_jax.config import ExperimentConfig
from hrm_jax.model import flops
from hrm_jax.run import backend, summary


def with_settings(config: ExperimentConfig, changes: dict[str, Any]) -> ExperimentConfig:
    """Returns the configuration with flat settings changed."""
    values = config.to_dict()
    for key, value in changes.items():
        *sections, name = key.split('.')
        inner = values
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return ExperimentConfig.from_dict(values)


def main(argv: Sequence[str]) -> int:
    """Evaluates the last checkpoint on the whole test split, test by test.

    Args:
      argv: folder of the run, file to write, the tests as JSON (``runs.tests_of``).
    """
    place, output, tests = Path(argv[0]), Path(argv[1]), json.loads(argv[2])
    common.quiet_orbax()
    backend.enable_compilation_cache()
    saved = store.read_model(layout.resolve('latest', place))
    found: dict[str, dict[str, float]] = {}
    gflops: dict[str, float] = {}
    for name, settings in tests.items():
        config = with_settings(saved.config, {**settings, 'eval.max_examples': 0})
        values = eval_checkpoint.evaluate_checkpoint(config, place, 'latest', lambda text: None)
        found[name] = {k.removeprefix('eval/all/'): v for k, v in values.items()}
        # Rollouts count their own; all others take the steps that they take.
        steps = found[name].get('steps', config.eval_steps)
        each = flops.act_step(config.inference_model) / 1e9
        gflops[name] = found[name].get('gflops', steps * each)
    weights = saved.weights
    table = 0 if weights.puzzle_table is None else weights.puzzle_table.size
    count = sum(leaf.size for leaf in summary.jax.tree.leaves(weights.params))
    result = {'tests': found, 'gflops': gflops, 'parameters': [int(count), int(table)]}
    files.write_text(output, json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
