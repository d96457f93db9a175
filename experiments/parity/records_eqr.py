"""Checks of EqR and PTRM: random starts, noise and damping at every update, noise before a step.

Sources: locuslab/EqR models/eqr.py; TRM with the loop of PTRM (arXiv 2605.19943). The fixtures hold
every random draw. Ours come from keys, so the arrays are put in the place of what a key would give:
``replayed`` answers ``draws.normal`` and ``draws.truncated_normal`` by looking the key up.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import itertools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import batch_of, loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    OWN,
    experiment,
    load,
)
from hrm_jax import act
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from hrm_jax.interop import state_dict
from hrm_jax.model import draws, hrm, puzzle_table, starts
from hrm_jax.types import Weights

_KEY = jax.random.key(0)
_STEP_KEY = jax.random.fold_in(_KEY, 0)


@contextlib.contextmanager
def replayed(table: Mapping[bytes, Any]) -> Iterator[None]:
    """Lets draws give recorded arrays; ``table``: data of a key -> array of one shape.

    The arrays may be tracers: a function compiled once then serves the draws of every call. A key
    that is not in the table draws NaN, which no comparison passes.
    """
    keys = jnp.asarray([np.frombuffer(data, np.uint32) for data in table])
    values = jnp.stack([jnp.asarray(value, jnp.float32) for value in table.values()])

    def look_up(key, shape, *_rest):
        found = (keys == jax.random.key_data(key)).all(1)
        chosen = values[jnp.argmax(found)]
        return jnp.where(found.any(), chosen, jnp.nan).reshape(shape)

    with (
        mock.patch.object(draws, 'normal', look_up),
        mock.patch.object(draws, 'truncated_normal', look_up),
    ):
        yield


def data_of(key: jax.Array, *numbers: int) -> bytes:
    """Data of the key after these folds, known while a function is traced."""
    with jax.ensure_compile_time_eval():
        for number in numbers:
            key = draws.fold(key, number)
        return np.asarray(jax.random.key_data(key)).tobytes()


def noise_table(config: ExperimentConfig, key: jax.Array, noise: Any) -> dict[bytes, Any]:
    """Recorded noise of one ACT step, in the order of the updates, by the keys of the updates."""
    model = config.model
    with jax.ensure_compile_time_eval():
        key = draws.key_of('update_noise', key)
    updates = itertools.product(range(model.H_cycles), range(model.L_cycles + 1))
    return {data_of(key, *update): noise[i] for i, update in enumerate(updates)}


def start_table(key: jax.Array, high: Any, low: Any) -> dict[bytes, Any]:
    """Recorded initial states by their keys."""
    with jax.ensure_compile_time_eval():
        key = draws.key_of('start', key)
    return {data_of(key, 0): high, data_of(key, 1): low}


def eqr_experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture of EqR, in our terms."""
    info = fixture.info['config']
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    model = {name: value for name, value in info.items() if name in fields}
    model |= {
        'levels': 'shared', 'gradient_window': 'last_cycle', 'puzzle_emb_ndim': 0,
        'num_puzzle_identifiers': 1, 'initial_state': 'random',
        'high_start_std': info['H_init_std'], 'low_start_std': info['L_init_std'],
        'update_rate': info['lambda_'], 'update_noise': info['noise_scale'],
        'board_width': info.get('board_width') or 0,
        'block': 'token_mixing' if info['mlp_t'] else 'attention',
    }  # fmt: skip
    return ExperimentConfig(
        model=ModelConfig(**model),
        act=ActConfig(
            halting='halt_only',
            halt_max_steps=info['halt_max_steps'],
            halt_exploration_prob=info['halt_exploration_prob'],
        ),
        loss=LossConfig(count_empty_rows=True),
        train=TrainConfig(global_batch_size=1),  # the fixtures' losses are sums
    )


@check(
    arrays=('param/*', 'train/call0/draw/noise', 'train/call0/rows_reset'),
    fields=('config.lambda_', 'config.noise_scale'),
)
def eqr(fixture: Fixture, report: Report) -> None:
    """Training calls with resets, noise, halting and gradients; then depth times breadth."""
    config = eqr_experiment(fixture)
    weights = load(fixture, config)
    _check_training(fixture, report, config, weights)
    if 'eval' in fixture.info:
        _check_rollouts(fixture, report, config, weights)


def _check_training(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    first = batch_of(fixture.group('in/train0/'))
    rows = first.inputs.shape[0]

    @jax.jit
    def run(params, carry, batch, least, drawn, noise):
        moved = weights.replace(params=params)
        # As in the train step: the model's key gives the starts, its fold 0 the step's draws.
        table = start_table(_KEY, *drawn) | noise_table(config, _STEP_KEY, noise)
        with replayed(table):
            initial = starts.initial_latent(config.model, moved, rows, _KEY)
            begun = act.refill(carry, batch, initial)
            return loss_and_gradients(config, moved, None, begun, least, _KEY)

    carry = act.initial_carry(starts.empty_latent(config.model, rows), first)
    number = 0
    while want := fixture.group(f'train/call{number}/'):
        what = f'train/{number}/'
        batch = batch_of(fixture.group(f'in/train{number}/'))
        reset = want['rows_reset']
        report.equal(f'{what}rows that begin', np.asarray(carry.halted), reset)
        drawn = [np.full(want['carry_zH'].shape, np.nan, np.float32) for _ in range(2)]
        for name, full in zip(('reset_zH', 'reset_zL'), drawn, strict=True):
            if reset.any():  # other rows were not drawn, and must not be read
                full[reset] = want[f'draw/{name}']
        explored = want['draw/explore_uniform'] < config.act.halt_exploration_prob
        least = jnp.asarray(np.where(explored, want['draw/explore_min_steps'], 0), jnp.int32)
        (loss, (carry, outputs, _, sums)), (grads, _) = run(
            weights.params, carry, batch, least, drawn, want['draw/noise']
        )
        for name in ('steps', 'halted'):
            report.equal(f'{what}{name}', getattr(carry, name), want[name])
        for name in ('inputs', 'labels'):
            report.equal(f'{what}{name}', getattr(carry.batch, name), want[f'current_{name}'])
        _compare(report, what, outputs, carry.latent, want)
        report.close(f'{what}q_halt', outputs.q_halt, want['q_halt'], OUTPUT_TOLERANCE)
        report.equal(f'{what}preds', jnp.argmax(outputs.logits, -1), want['preds'])
        for name, got in (('total', loss), ('lm_loss', sums.lm_loss),
                          ('q_halt_loss', sums.q_halt_loss)):  # fmt: skip
            report.close(f'{what}{name}', got, want[f'loss/{name}'], 1e-3)
        for name in ('count', 'exact_accuracy', 'q_halt_accuracy', 'steps'):
            report.close(f'{what}{name}', getattr(sums, name), want[f'metric/{name}'], 1e-5)
        wanted = fixture.group(f'train/call{number}/grad/')
        ours = state_dict.to_official(weights.replace(params=grads), config.model, prefix=OWN)
        for name, value in wanted.items():
            report.close_to_largest(f'{what}grad/{name}', ours[name], value, GRADIENT_TOLERANCE)
        number += 1
    report.equal('training calls', number > 0, True)


def _compare(report: Report, what: str, outputs, latent, want: dict[str, Any]) -> None:
    report.close(f'{what}logits', outputs.logits, want['logits'], OUTPUT_TOLERANCE)
    for name, state in (('carry_zH', latent.high), ('carry_zL', latent.low)):
        report.close(f'{what}{name}', state, want[name], OUTPUT_TOLERANCE)


def _check_rollouts(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Every chain of every puzzle from its own start; the choice by the smallest change."""
    info, batch = fixture.info['eval'], batch_of(fixture.group('in/eval/'))
    breadth = info['breadth']
    inputs = jnp.repeat(batch.inputs, breadth, axis=0)
    drawn = fixture.arrays['eval/draw/init_zH'], fixture.arrays['eval/draw/init_zL']
    with replayed(start_table(_KEY, *drawn)):
        latent = starts.fresh_latent(config.model, weights, len(inputs), _KEY)

    @jax.jit
    def run(latent, noise):
        with replayed(noise_table(config, _KEY, noise)):
            return hrm.act_step(config.model, weights, latent, inputs, None, _KEY)

    logits = []
    for number in range(info['depth']):
        want = fixture.group(f'eval/step{number}/')
        latent, outputs = run(latent, want['draw/noise'])
        _compare(report, f'eval/{number}/', outputs, latent, want)
        logits.append(outputs.logits)
    changes = jnp.stack([
        jnp.linalg.norm(b - a, axis=-1).mean(-1) for a, b in itertools.pairwise(logits)
    ])  # fmt: skip
    scores = changes[-info['window'] :].mean(0).reshape(-1, breadth)
    report.close('eval/scores', scores, fixture.arrays['eval/scores'], OUTPUT_TOLERANCE)
    report.equal('eval/chosen', jnp.argmin(scores, 1), fixture.arrays['eval/chosen'])


@check(arrays=('param/*', 'step0/noise', 'best_q_index'), fields=('sigma', 'K'))
def ptrm(fixture: Fixture, report: Report) -> None:
    """TRM with noise on the high state before every step; the answer of the best q."""
    config = experiment(fixture)
    model = dataclasses.replace(config.model, high_step_noise=fixture.info['sigma'])
    config = dataclasses.replace(config, model=model)
    weights, chains, given = load(fixture, config), fixture.info['K'], fixture.group('in/')
    inputs = jnp.repeat(given['inputs'], chains, axis=0)
    rows = puzzle_table.puzzle_rows(weights, jnp.repeat(given['puzzle_identifiers'], chains))
    latent = starts.fresh_latent(model, weights, len(inputs))
    noise_key = data_of(draws.key_of('step_noise', _KEY), 0)

    @jax.jit
    def run(latent, noise):
        with replayed({noise_key: noise}):
            return hrm.act_step(model, weights, latent, inputs, rows, _KEY)

    number = 0
    while want := fixture.group(f'step{number}/'):
        latent, outputs = run(latent, want['noise'])
        for name, got in (('logits', outputs.logits), ('q_halt', outputs.q_halt),
                          ('zH', latent.high), ('zL', latent.low)):  # fmt: skip
            report.close(f'step{number}/{name}', got, want[name], OUTPUT_TOLERANCE)
        number += 1
    best = outputs.q_halt.reshape(-1, chains).argmax(1)
    report.equal('best_q_index', best, fixture.arrays['best_q_index'])
    answers = jnp.argmax(outputs.logits, -1).reshape(-1, chains, inputs.shape[1])
    report.equal(
        'best_q_answer', answers[jnp.arange(len(best)), best], fixture.arrays['best_q_answer']
    )
