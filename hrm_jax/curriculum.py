"""Curriculum over cycles: training begins with a shallow recursion and ends with the model's own.

Source: CGAR (arXiv 2511.08653, its model file). Only training has stages; evaluation runs the
model's cycles from the first step on.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from hrm_jax.config import ExperimentConfig, ModelConfig
from hrm_jax.model import flops

Cycles = tuple[int, int]


def cgar_stages(high: int, low: int) -> tuple[Cycles, Cycles, Cycles]:
    """Cycles (H, L) of the three stages: about a third, two thirds, and all of them.

    The first stage has at least two low cycles, even where the model has one.
    """
    first = max(1, math.ceil(high / 3)), max(2, math.ceil(low / 3))
    second = (
        min(high, max(first[0], math.ceil(2 * high / 3))),
        min(low, max(first[1], math.ceil(2 * low / 3))),
    )
    return first, second, (high, low)


def models(config: ExperimentConfig) -> list[ModelConfig]:
    """The model of each stage, in order; one without a curriculum."""
    match config.train.curriculum:
        case 'none':
            return [config.model]
        case 'cgar':
            stages = cgar_stages(config.model.H_cycles, config.model.L_cycles)
            return [
                dataclasses.replace(config.model, H_cycles=high, L_cycles=low)
                for high, low in stages
            ]
    raise ValueError(f'no curriculum called {config.train.curriculum!r}')


def shares(config: ExperimentConfig) -> list[float]:
    """Share of the train steps that each of ``models`` takes."""
    if config.train.curriculum == 'none':
        return [1.0]
    first, second = config.train.curriculum_shares
    return [first, second - first, 1 - second]


def mean_train_flops(config: ExperimentConfig) -> float:
    """FLOPs of a train step on one row, the mean over a whole run (model/flops.py).

    Raises:
      NotImplementedError: the FLOPs of the block are not counted.
    """
    costs = (flops.train_step(model, config.act, config.loss) for model in models(config))
    return sum(share * cost for share, cost in zip(shares(config), costs, strict=True))


def flops_of_a_step(config: ExperimentConfig) -> float:
    """``mean_train_flops`` of the whole batch."""
    return mean_train_flops(config) * config.train.global_batch_size


def boundaries(config: ExperimentConfig, total_steps: int) -> list[int]:
    """Train steps (from 0) at which the later stages begin."""
    return [math.ceil(share * total_steps) for share in config.train.curriculum_shares]


def stage(config: ExperimentConfig, total_steps: int, step: jax.Array) -> jax.Array:
    """Number of the stage that a train step belongs to, int32 []."""
    starts = jnp.asarray(boundaries(config, total_steps), jnp.int32)
    return (step >= starts).sum().astype(jnp.int32)
