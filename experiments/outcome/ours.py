"""Trains this project's side in a process of its own, which keeps to one thread.

    python -m experiments.outcome.ours REQUEST.json RESULT.json

Started by runs.py.
"""

import json
from pathlib import Path
import sys

from hrm_jax import files


def main() -> None:
    """Trains or resumes what the request names, and writes the curve."""
    request = json.loads(Path(sys.argv[1]).read_text())
    import jax

    from hrm_jax import train
    from hrm_jax.config import ExperimentConfig
    from hrm_jax.run import backend, writers

    backend.enable_compilation_cache()
    config = ExperimentConfig.from_dict(request['settings'])
    workdir = Path(request['workdir'])
    outcome = train.train(config, workdir)
    if outcome.signal:
        raise SystemExit(f'stopped by {outcome.signal}')
    prefix = 'eval/all/'
    lines = [
        line
        for line in writers.read_records(workdir / 'metrics.jsonl')
        if f'{prefix}exact_accuracy' in line
    ]
    names = [key for key in lines[0] if key.startswith(prefix)]
    params = outcome.state.weights.params
    result = {
        'steps': [line['step'] for line in lines],
        'metrics': {name.removeprefix(prefix): [line[name] for line in lines] for name in names},
        'facts': {
            'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
            'jax': jax.__version__,
        },
    }
    files.write_text(sys.argv[2], json.dumps(result))


if __name__ == '__main__':
    main()
