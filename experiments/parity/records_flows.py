"""Checks of looped flows: noisy answers and times in training, and the sampler.

The fixtures hold every random draw; ``records_eqr.replayed`` puts the arrays in the place of what
our keys would give.
"""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import loss_and_gradients
from experiments.parity.records_eqr import data_of, replayed
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, OWN
from hrm_jax import act
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from hrm_jax.interop import state_dict
from hrm_jax.model import draws, flows, hrm, puzzle_table, starts
from hrm_jax.types import Batch, Weights

_KEY = jax.random.key(0)
_RAMP = 2  # train steps; at step 1 a pseudotarget is as likely as not
# Ours -> the fixture's name.
_NEW = {'embed_answer': 'wx', 'time_in': 't1', 'time_out': 't2'}


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture, in our terms."""
    info = fixture.info['config']
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    model = {name: value for name, value in info.items() if name in fields}
    opened = fixture.arrays['in/train/tokens'][_open_cells(fixture)]
    model |= {
        'levels': 'shared', 'gradient_window': 'last_cycle', 'flow': True,
        'block': 'token_mixing' if info['mlp_t'] else 'attention',
        'flow_times': fixture.info['time_sampler'],
        'flow_draws': fixture.arrays['in/train/times'].shape[1],
        'flow_pseudotarget_steps': _RAMP,
        'flow_open_token': int(opened[0]) if fixture.info['fixed_cells'] else -1,
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


def _open_cells(fixture: Fixture) -> np.ndarray:
    return fixture.arrays['in/train/tokens'] != fixture.arrays['in/train/answer']


def load(fixture: Fixture, config: ExperimentConfig) -> Weights:
    """The weights of a fixture."""
    plain = dataclasses.replace(config.model, flow=False)
    weights = state_dict.from_official(fixture.group('param/trm.'), plain)
    new = {}
    for ours, theirs in _NEW.items():
        tensors = fixture.group(f'param/{theirs}.')
        new[ours] = {'kernel': tensors['weight'].T}
        if 'bias' in tensors:
            new[ours]['bias'] = tensors['bias']
    weights = weights.replace(params=weights.params | new)
    return jax.tree.map(jnp.asarray, weights)


@check(
    arrays=('in/train/times', 'param/wx.weight', 'param/t1.weight'),
    fields=('time_sampler', 'fixed_cells'),
)
def looped_flow(fixture: Fixture, report: Report) -> None:
    """Training steps on shared noise with pseudotargets, then the sampler for every g."""
    config = experiment(fixture)
    weights = load(fixture, config)
    _check_training(fixture, report, config, weights)
    samplers = {name.split('/')[0] for name in fixture.group('sample/')}
    report.equal('samplers', len(samplers) > 0, True)
    for name in sorted(samplers):
        _check_sampler(fixture, report, config, weights, name)


def _check_training(fixture, report, config, weights) -> None:
    given = fixture.group('in/train/')
    rows = len(given['tokens'])
    batch = Batch(
        inputs=jnp.asarray(given['tokens'], jnp.int32),
        labels=jnp.asarray(given['labels'], jnp.int32),
        puzzle_identifiers=jnp.asarray(given['puzzle_identifiers'], jnp.int32),
    )
    # The uniform numbers and the noise give the times and x0.
    sigma = config.model.vocab_size**-0.5
    with (
        replayed({data_of(draws.key_of('flow_start', _KEY)): given['x0'] / sigma}),
        mock.patch.object(draws, 'uniform', return_value=jnp.asarray(given['uniforms'])),
    ):
        initial = starts.initial_latent(config.model, weights, rows, _KEY)
    report.close('times', initial.answer.times, given['times'], 1e-6)
    carry = act.initial_carry(starts.empty_latent(config.model, rows), batch)
    carry = act.refill(carry, batch, initial)
    # The fixture's interpolants also know the answer of cells that are not scored.
    answers = jax.nn.one_hot(given['answer'], config.model.vocab_size)

    @jax.jit
    def run(params, carry, drawn):
        moved = weights.replace(params=params)
        rows = puzzle_table.puzzle_rows(moved, carry.batch.puzzle_identifiers)
        least, answer = jnp.zeros_like(carry.steps), carry.latent.answer
        with (
            mock.patch.object(flows, 'truth', return_value=answers),
            mock.patch.object(draws, 'uniform', return_value=drawn),
        ):
            point = flows.interpolant(
                config.model, answer, batch.inputs, batch.labels, _KEY, _RAMP / 2
            )
            step = loss_and_gradients(config, moved, rows, carry, least, _KEY, _RAMP // 2)
        return point, step

    number = 0
    while want := fixture.group(f'train/step{number}/'):
        what = f'train/{number}/'
        drawn = jnp.where(given['use_pseudotarget'][:, number], 0.0, 1.0)
        carry = dataclasses.replace(carry, halted=jnp.zeros_like(carry.halted))
        point, step = run(weights.params, carry, drawn)
        (loss, (carry, outputs, _, sums)), (grads, _) = step
        report.close(f'{what}x', point.x, want['x'], OUTPUT_TOLERANCE)
        _compare(report, what, carry.latent, outputs, want)
        report.close(f'{what}logits', outputs.logits, want['logits'], OUTPUT_TOLERANCE)
        report.close(f'{what}probs', carry.latent.answer.predicted, want['probs'], OUTPUT_TOLERANCE)
        for name, got in (('total', loss), ('ce', sums.lm_loss), ('bce', sums.q_halt_loss)):
            report.close_relative(f'{what}{name}', got, want[f'loss/{name}'], OUTPUT_TOLERANCE)
        _compare_gradients(fixture, report, config, weights, grads, number)
        number += 1
    report.equal('training steps', number > 0, True)


def _compare(report, what, latent, outputs, want) -> None:
    report.close(f'{what}q_halt', outputs.q_halt, want['q_halt'], OUTPUT_TOLERANCE)
    for name, state in (('zH', latent.high), ('zL', latent.low)):
        if name in want:
            # Relative to the largest, as the tolerance is meant: the samplers carry rounding along.
            report.close_to_largest(f'{what}{name}', state, want[name], OUTPUT_TOLERANCE)


def _compare_gradients(fixture, report, config, weights, grads, number) -> None:
    wanted = fixture.group(f'train/step{number}/grad/')
    if not wanted:
        return
    plain = dataclasses.replace(config.model, flow=False)
    old = {name: leaf for name, leaf in grads.items() if name not in _NEW}
    found = state_dict.to_official(weights.replace(params=old), plain, prefix=f'trm.{OWN}')
    for ours, theirs in _NEW.items():
        found[f'{theirs}.weight'] = grads[ours]['kernel'].T
        if 'bias' in grads[ours]:
            found[f'{theirs}.bias'] = grads[ours]['bias']
    for name, value in wanted.items():
        report.close_to_largest(
            f'train/{number}/grad/{name}', found[name], value, GRADIENT_TOLERANCE
        )


def _check_sampler(fixture, report, config, weights, sampler: str) -> None:
    want = fixture.group(f'sample/{sampler}/')
    steps = sum(name.endswith('/xbar') for name in want)
    shared = EvalConfig(halt_max_steps=steps, flow_noise=float(sampler.removeprefix('gamma')))
    model = dataclasses.replace(config, eval=shared).inference_model
    given = fixture.group('in/train/')
    inputs = jnp.asarray(given['tokens'], jnp.int32)
    rows = puzzle_table.puzzle_rows(weights, jnp.asarray(given['puzzle_identifiers']))
    sigma = model.vocab_size**-0.5
    with replayed({data_of(draws.key_of('flow_start', _KEY)): want['x0'] / sigma}):
        latent = starts.fresh_latent(model, weights, len(inputs), _KEY)
    keys = [draws.fold(_KEY, number + 1) for number in range(steps)]
    noises = {
        data_of(draws.key_of('flow_noise', key)): want[f'step{number}/eps'] / sigma
        for number, key in enumerate(keys)
    }

    @jax.jit
    def run(latent, key):
        with replayed(noises):
            point = flows.sampler_point(model, latent.answer, inputs, key)
            return point, *hrm.act_step(model, weights, latent, inputs, rows, key)

    for number, key in enumerate(keys):
        what, here = f'sample/{sampler}/{number}/', fixture.group(f'sample/{sampler}/step{number}/')
        point, latent, outputs = run(latent, key)
        report.close(f'{what}xbar', point.x, here['xbar'], OUTPUT_TOLERANCE)
        report.close(f'{what}time', point.time, np.full(len(inputs), here['a_s'][1]), 1e-6)
        report.close(f'{what}x', latent.answer.x, here['x'], OUTPUT_TOLERANCE)
        _compare(report, what, latent, outputs, here)
    answer = jnp.argmax(outputs.logits, -1)
    report.equal(f'sample/{sampler}/answer', answer, want['answer'])
