"""Checks of SIC with several chains: winners, copies, drops, aligned starts, the first to halt.

Source: jvdillon/sic code/experiment.py and code/model.py (TRM3). Its chains are slots of one pool,
``chain_indices`` [samples, chains] tells which (-1: dropped); ours stay beside their sample.
"""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import loss_and_gradients
from experiments.parity.records_eqr import data_of, replayed
from experiments.parity.records_sic import (
    PARAMETER_TOLERANCE,
    compare_tensors,
    pool,
    sic_experiment,
    train_state,
)
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from hrm_jax import act, train_step
from hrm_jax.config import ExperimentConfig
from hrm_jax.inference import early_exit
from hrm_jax.model import draws, hrm, starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch

_KEY = jax.random.key(0)


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture with several chains, in our terms."""
    config, info = sic_experiment(fixture), fixture.info['config']
    model = dataclasses.replace(
        config.model,
        chains=info['K'],
        chain_similarity=info['expunge'],
        align_chains=True,
        initial_state='random_low' if info['rand_init'] else 'fixed',
    )
    evaluation = dataclasses.replace(config.eval, chains=info['K'])
    return dataclasses.replace(config, model=model, eval=evaluation)


@check(
    arrays=('param/register_tokens', 'train/call0/winner_chains', 'train/call0/param_after/*'),
    fields=('config.K', 'config.expunge', 'experiment.muon_lr'),
    accepts=lambda fixture: fixture.info['config']['K'] > 1,
)
def sic_chains(fixture: Fixture, report: Report) -> None:
    """Train calls with updates, then inference until the first chain halts."""
    config = experiment(fixture)
    total, count = fixture.info['experiment']['total_train_steps'], config.model.chains
    state = train_state(fixture, config)
    with jax.ensure_compile_time_eval():
        start_key = data_of(draws.key_of('start', draws.key_of('model', _KEY)), 1)
    drawn = _starts(fixture)
    used = 0

    @jax.jit
    def run(state, batch, least, drawn_starts):
        model_key = draws.key_of('model', _KEY)
        with (
            mock.patch.object(act, 'exploration_min_steps', return_value=least),
            # The step's own key is ``_KEY``, whatever its number.
            mock.patch.object(jax.random, 'fold_in', _fold_of_steps),
            replayed({start_key: drawn_starts}),
        ):
            initial = starts.initial_latent(config.model, state.weights, len(least), model_key)
            begun = act.refill(state.carry, batch, initial)
            found = loss_and_gradients(config, state.weights, None, begun, least, model_key)
            return begun, found, train_step.train_step(config, total, state, batch)

    number = 0
    while want := fixture.group(f'train/call{number}/'):
        what, begins = f'train/{number}/', np.asarray(state.carry.halted)
        explored = want['draw/rand0'] < config.act.halt_exploration_prob
        least = jnp.asarray(np.where(explored, want['draw/randint0'], 0), jnp.int32)
        shape = (len(begins), count, *want['before_forward/zL'].shape[1:])
        drawn_starts = np.zeros(shape, np.float32)
        if drawn is not None:
            drawn_starts[begins] = drawn[used : used + begins.sum()]
            used += begins.sum()
        begun, found, (state, _) = run(state, pool(want), least, drawn_starts)
        (loss, (carry, outputs, _, _)), (grads, _) = found

        slots = want['before_forward/chain_indices']
        alive = slots >= 0
        report.equal(f'{what}chains', begun.latent.alive, alive)
        for name, got in (('zH', begun.latent.high), ('zL', begun.latent.low)):
            wanted = want[f'before_forward/{name}'][slots]
            report.close(f'{what}{name} before', _of(got, alive), _of(wanted, alive), 1e-3)
        report.close_relative(f'{what}total', loss, want['loss/total'], OUTPUT_TOLERANCE)
        winners = want['winner_chains']
        for name, got in (('logits', outputs.logits), ('q_halt', outputs.q_halt)):
            report.close(f'{what}{name}', got, want[f'forward/{name}'][winners], 1e-3)
        low = want['forward/z_L'][slots]
        report.close(f'{what}z_L', _of(carry.latent.low, alive), _of(low, alive), 1e-3)
        high = np.broadcast_to(want['forward/z_H'][winners][:, None], low.shape)
        report.close(f'{what}z_H', carry.latent.high, high, 1e-3)
        moved = state.weights.replace(params=grads)
        for name, weights, tolerance in (
            ('grad', moved, GRADIENT_TOLERANCE),
            ('param_after', state.weights, PARAMETER_TOLERANCE),
            ('ema', state.weights.replace(params=state.ema), PARAMETER_TOLERANCE),
        ):
            wanted = fixture.group(f'train/call{number}/{name}/')
            compare_tensors(report, f'{what}{name}/', weights, config.model, wanted, tolerance)
        halted = np.asarray(state.carry.halted)
        report.equal(f'{what}halted', halted.sum(), want['metric/n_halted'])
        left = np.asarray(state.carry.latent.alive)[~halted]
        dropped = alive[~halted].sum() - left.sum()
        report.equal(f'{what}dropped', dropped, want['metric/n_expunged'])
        report.equal(f'{what}left', left, (want['after/chain_indices'] >= 0)[~halted])
        number += 1
    report.equal('training calls', number > 0, True)
    if 'halt_first/steps' in fixture.arrays:
        _check_inference(fixture, report, config, state.weights)


_fold_in = jax.random.fold_in


def _fold_of_steps(key, number):
    """``fold_in``, of which a train step's own (its number is traced) gives ``_KEY``."""
    return _KEY if isinstance(number, jax.core.Tracer) else _fold_in(key, number)


def _of(values, alive):
    """The chains that are in the running; what the others hold differs and is never read."""
    return np.asarray(values)[np.asarray(alive)]


def _starts(fixture: Fixture) -> np.ndarray | None:
    """All low starts that were drawn, in the order in which samples begin; None: they are fixed."""
    names, call = [], 0
    while fixture.group(f'train/call{call}/'):
        here = [n for n in fixture.group(f'train/call{call}/draw/') if n.startswith('tnorm')]
        names += [f'train/call{call}/draw/{n}' for n in sorted(here, key=lambda n: int(n[5:]))]
        call += 1
    return np.concatenate([fixture.arrays[name] for name in names]) if names else None


def _check_inference(fixture, report, config, weights) -> None:
    """Every chain at every step; then who answers, through the slots of early exit."""
    want = fixture.group('halt_first/')
    head = dict(weights.params['q_head'])
    head['bias'] = head['bias'].at[0].set(want['q_head_bias'][0])
    weights = weights.replace(params={**weights.params, 'q_head': head})
    inputs = jnp.asarray(fixture.arrays['in/eval/inputs'], jnp.int32)
    model = config.inference_model
    latent = starts.fresh_latent(model, weights, len(inputs))

    @jax.jit
    def run(latent):  # training returns what every chain gives
        return hrm.act_step(model, weights, latent, inputs, None, training=True)

    for number in range(config.act.halt_max_steps):
        latent, outputs = run(latent)
        for name in ('logits', 'q_halt'):
            key = f'step{number}/{name}'
            if key in want:
                report.close(f'halt_first/{key}', getattr(outputs, name), want[key], 1e-3)
    rows = len(inputs)
    queue = Batch(
        inputs=inputs,
        labels=jnp.full(inputs.shape, IGNORE_LABEL_ID, jnp.int32),
        puzzle_identifiers=jnp.zeros(rows, jnp.int32),
    )
    slots = early_exit.empty_slots(config, 2)
    _, done, _ = jax.jit(lambda slots: early_exit.work(
        config, weights, slots, queue, jnp.int32(rows), jnp.int32(0), jnp.asarray(True)
    ))(slots)  # fmt: skip
    order = np.argsort(np.asarray(done.number[:rows]))
    report.equal('halt_first/steps', done.steps[:rows][order], want['steps'])
    report.equal('halt_first/prediction', done.predictions[:rows][order], want['prediction'])
