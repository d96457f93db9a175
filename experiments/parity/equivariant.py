"""Checks of SE-RRM: a state for every symbol and cell, attention over both axes.

The fixtures hold every random draw. Dropout masks come in the order of the updates, so the loops of
the schedule are written out while a step is traced, and each mask is taken where it is asked for.
"""

from collections.abc import Iterator
import contextlib
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import batch_of, loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, OWN
from hrm_jax import act, losses
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, TrainConfig
from hrm_jax.interop import architecture, original_config, state_dict, tensor_names
from hrm_jax.model import hrm, layers, puzzle_table, recursion, starts
from hrm_jax.types import Weights

_KEY = jax.random.key(0)
_METRICS = ('count', 'accuracy', 'exact_accuracy', 'q_halt_accuracy', 'steps', 'lm_loss',
            'q_halt_loss')  # fmt: skip


@contextlib.contextmanager
def masked(masks: list[jax.Array]) -> Iterator[None]:
    """Lets dropout take the next mask, every update of a schedule traced; without masks nothing."""
    if not masks:
        yield
        return
    remaining = iter(masks)

    def repeat(step, state, times, unroll):
        del unroll
        for number in range(times):
            state = step(state, number)
        return state

    def dropout(module, x, rate, shape=None):
        del module, shape
        if rate == 0:
            return x
        keep = jnp.asarray(next(remaining)).reshape(x.shape)
        return jnp.where(keep, x / (1 - rate), 0)

    with (
        mock.patch.object(recursion, '_repeat', repeat),
        mock.patch.object(layers, 'dropout', dropout),
    ):
        yield


def masks_of(step: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Recorded masks of one step in their order; none without dropout."""
    count = sum(name.startswith('draw/attn_keep') for name in step)
    return [step[f'draw/attn_keep{number}'] for number in range(count)]


def experiment(fixture: Fixture, **changes: Any) -> tuple[ExperimentConfig, Weights]:
    """The configuration and weights, as the converter reads them from names and settings."""
    tensors = {
        tensor_names.strip_prefix(name): x for name, x in fixture.group('param/').items()
    }  # fmt: skip
    info = fixture.info['config'] | changes
    findings = architecture.infer_model(tensors)
    settings = original_config.from_original(info, fixture.name, findings)
    model = architecture.complete_model(settings.model, findings, fixture.name)
    config = ExperimentConfig(
        model=model,
        act=ActConfig(**settings.rest['act']),
        loss=LossConfig(count_empty_rows=True),
        train=TrainConfig(global_batch_size=1),  # the fixtures' losses are sums
    )
    return config, jax.tree.map(jnp.asarray, state_dict.from_official(tensors, model))


def _run_eval(
    config: ExperimentConfig, weights: Weights, batch: Any, steps: list[dict]
) -> Iterator[tuple]:
    """Evaluation steps from a fresh state: (outputs, state) after each."""
    rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)
    latent = starts.fresh_latent(config.model, weights, len(batch.inputs))

    @jax.jit
    def run(latent, masks):
        with masked(masks):
            return hrm.act_step(config.model, weights, latent, batch.inputs, rows, _KEY)

    for step in steps:
        latent, outputs = run(latent, masks_of(step))
        yield outputs, latent


def _steps(fixture: Fixture, prefix: str) -> list[dict[str, np.ndarray]]:
    found = []
    while step := fixture.group(f'{prefix}step{len(found)}/'):
        found.append(step)
    return found


def _compare(report: Report, what: str, outputs, latent, want: dict[str, Any]) -> None:
    report.close_to_largest(f'{what}logits', outputs.logits, want['logits'], OUTPUT_TOLERANCE)
    report.close_to_largest(f'{what}q_halt', outputs.q_halt, want['q_halt'], OUTPUT_TOLERANCE)
    if 'carry_z' in want:
        report.close_to_largest(f'{what}carry_z', latent.high, want['carry_z'], OUTPUT_TOLERANCE)
    if 'preds' in want:
        report.equal(f'{what}preds', jnp.argmax(outputs.logits, -1), want['preds'])


def _compare_sums(report: Report, what: str, sums, loss, want: dict[str, Any]) -> None:
    for name in _METRICS:
        got, wanted = getattr(sums, name), want[f'metric/{name}']
        if np.issubdtype(wanted.dtype, np.integer):
            report.equal(f'{what}{name}', got, wanted)
        else:
            report.close_relative(f'{what}{name}', got, wanted, OUTPUT_TOLERANCE)
    report.close_relative(f'{what}total', loss, want['loss/total'], OUTPUT_TOLERANCE)


@check('serrm', arrays=('param/inner.Z_init', 'eval/step0/carry_z'))
def se_rrm(fixture: Fixture, report: Report) -> None:
    """Evaluation, renamed symbols, other boards with the same weights, training with gradients."""
    config, weights = experiment(fixture)
    again = state_dict.to_official(weights, config.model, prefix=OWN)
    for name, want in fixture.group('param/').items():
        report.equal(f'param/{name}', again[name], want)
    batch = batch_of(fixture.group('in/eval/'))
    steps = _steps(fixture, 'eval/')
    for number, (outputs, latent) in enumerate(_run_eval(config, weights, batch, steps)):
        what, want = f'eval/{number}/', steps[number]
        _compare(report, what, outputs, latent, want)
        spent = jnp.full(len(batch.inputs), number + 1, jnp.int32)
        halted = spent >= config.act.halt_max_steps
        report.equal(f'{what}steps', spent, want['steps'])
        report.equal(f'{what}halted', halted, want['halted'])
        loss, sums = losses.act_loss(outputs, batch.labels, spent, halted, None, config.loss)
        _compare_sums(report, what, sums, loss, want)
    if 'equi/perm' in fixture.arrays:
        check_renaming(fixture, report, config, weights)
    if fixture.info.get('transfer_config'):
        check_transfer(fixture, report)
    check_training(fixture, report, config, weights)


def check_renaming(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """The renamed puzzles' answers, and whether they are the renamed answers."""
    perm = fixture.arrays['equi/perm']
    batch = batch_of(fixture.group('in/eval/'))
    renamed = batch.replace(inputs=jnp.asarray(perm)[batch.inputs])
    table = fixture.arrays.get('equi/puzzle_table')
    moved = weights if table is None else weights.replace(puzzle_table=jnp.asarray(table))
    steps = _steps(fixture, 'equi/')
    plain = list(_run_eval(config, weights, batch, steps))
    for number, (outputs, latent) in enumerate(_run_eval(config, moved, renamed, steps)):
        _compare(report, f'equi/{number}/', outputs, latent, steps[number])
        difference = jnp.abs(outputs.logits[..., perm] - plain[number][0].logits).max()
        scale = jnp.abs(outputs.logits).max()
        if config.model.shared_symbols:
            report.below(f'equi/{number}/renamed logits', difference / scale, 1e-4)
        else:
            report.equal(f'equi/{number}/symbols differ', bool(difference > 0.01 * scale), True)


def check_transfer(fixture: Fixture, report: Report) -> None:
    """The same weights on boards of another size, with another number of symbols."""
    config, weights = experiment(fixture, **fixture.info['transfer_config'])
    given = fixture.group('transfer/')
    given.setdefault('labels', given['inputs'])
    given.setdefault('puzzle_identifiers', np.zeros(len(given['inputs']), np.int32))
    steps = _steps(fixture, 'transfer/')
    for number, (outputs, latent) in enumerate(_run_eval(config, weights, batch_of(given), steps)):
        _compare(report, f'transfer/{number}/', outputs, latent, steps[number])


def check_training(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Training calls with the recorded lots of halting; nothing is updated."""
    first = batch_of(fixture.group('in/train0/'))
    rows = len(first.inputs)
    carry = act.initial_carry(starts.empty_latent(config.model, rows), first)

    @jax.jit
    def run(params, carry, least, puzzle_rows, masks):
        moved = weights.replace(params=params)
        with masked(masks):
            return loss_and_gradients(config, moved, puzzle_rows, carry, least, _KEY)

    number = 0
    while want := fixture.group(f'train/call{number}/'):
        what = f'train/{number}/'
        batch = batch_of(fixture.group(f'in/train{number}/'))
        report.equal(f'{what}rows that begin', carry.halted, want['rows_reset'])
        carry = act.refill(carry, batch, starts.initial_latent(config.model, weights, rows))
        puzzle_rows = puzzle_table.puzzle_rows(weights, carry.batch.puzzle_identifiers)
        stops = want['draw/explore_uniform'] < config.act.halt_exploration_prob
        least = jnp.asarray(np.where(stops, 0, config.act.halt_max_steps), jnp.int32)
        (loss, (carry, outputs, _, sums)), (grads, row_grads) = run(
            weights.params, carry, least, puzzle_rows, masks_of(want)
        )
        for name in ('steps', 'halted'):
            report.equal(f'{what}{name}', getattr(carry, name), want[name])
        for name in ('inputs', 'labels', 'puzzle_identifiers'):
            report.equal(f'{what}{name}', getattr(carry.batch, name), want[f'current_{name}'])
        _compare(report, what, outputs, carry.latent, want)
        _compare_sums(report, what, sums, loss, want)
        wanted = fixture.group(f'train/call{number}/grad/')
        ours = state_dict.to_official(weights.replace(params=grads), config.model, prefix=OWN)
        ours |= {f'{OWN}puzzle_emb.local_weights': row_grads}
        for name, value in wanted.items():
            report.close_to_largest(f'{what}grad/{name}', ours[name], value, GRADIENT_TOLERANCE)
        number += 1
    report.equal('training calls', number > 0, True)
    lots = act.exploration_min_steps(_KEY, 4096, config.act)
    share = float((lots == 0).mean())
    report.close('share of rows that stop', share, config.act.halt_exploration_prob, 0.03)
