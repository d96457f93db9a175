"""Easy tasks of ARC-AGI-1, chosen by sizes alone: small grids of one shape, a single test."""

import random
from typing import Any

from hrm_jax.run import build_data

_LARGEST = 10  # rows and columns


def is_easy(task: dict[str, Any]) -> bool:
    """Whether answers have the shapes of their questions, with 3 demonstrations or more."""
    pairs = [*task['train'], *task['test']]
    shapes = [[(len(p[side]), len(p[side][0])) for side in ('input', 'output')] for p in pairs]
    return (
        len(task['train']) >= 3
        and len(task['test']) == 1
        and all(a == b and max(a) <= _LARGEST for a, b in shapes)
    )


def choose(trained: int, unseen: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws tasks to train on and others to adapt to, from the training subset of ARC-AGI-1."""
    tasks = build_data.packaged_arc('arc1', 'training')
    easy = sorted(name for name, task in tasks.items() if is_easy(task))
    random.Random(seed).shuffle(easy)
    names = easy[: trained + unseen]
    if len(names) < trained + unseen:
        raise ValueError(f'there are {len(easy)} easy tasks; {trained + unseen} are asked for.')
    return (
        {name: tasks[name] for name in names[:trained]},
        {name: tasks[name] for name in names[trained:]},
    )
