"""Checks of the variants that use ACT steps: TRM, its ablations, SRU, SRU++.

The fixture's tensor names show which relative it is; its JSON gives the sizes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import batch_of, loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from hrm_jax import act, losses, optim
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from hrm_jax.interop import state_dict, tensor_names
from hrm_jax.model import blocks, hrm, puzzle_table, sru, starts
from hrm_jax.types import Batch, LatentState, Weights

OUTPUT_TOLERANCE = 3e-4
GRADIENT_TOLERANCE = 1e-3  # of the tensor's largest
_ACCURACIES = ('count', 'accuracy', 'exact_accuracy', 'q_halt_accuracy', 'steps')
OWN = 'inner.'  # what stands before every name in the fixtures


def variant(names: set[str], info: dict[str, Any]) -> dict[str, Any]:
    """Settings of ModelConfig that the names of the tensors imply."""
    if any('.sru.rnn_lst.' in name for name in names):
        kind = 'srupp'
    elif any('.rnn_lst.' in name for name in names):
        kind = 'sru'
    else:
        kind = ''
    if kind:
        cycles = {'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'}
        return {'block': kind, 'levels': 'separate', **cycles}
    block = {'block': 'token_mixing'} if info.get('mlp_t') else {}
    low = {name for name in names if name.startswith('L') and name.endswith('_init')}
    high_level = any(name.startswith('H_level.') for name in names)
    low_level = any(name.startswith('L_level.') for name in names)
    if high_level and low_level:
        return block
    if high_level:  # the plain transformer
        layers = {'L_layers': info['H_layers'], 'H_cycles': 1, 'L_cycles': 1}
        return block | {'levels': 'single', 'gradient_window': 'full', **layers}
    tiny = block | {
        'gradient_window': 'last_cycle',
        'puzzle_emb_len': info.get('puzzle_emb_len', 16),
    }
    if 'H_init' not in names:
        return tiny | {'levels': 'single', 'closing_update': True}
    return tiny | {'levels': 'shared', 'low_states': len(low)}


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration that a fixture's JSON and tensors state, in our terms."""
    info = fixture.info['config']
    names = {tensor_names.strip_prefix(name) for name in fixture.group('param/')}
    settings = variant(names, info)
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    model = ModelConfig(**({k: v for k, v in info.items() if k in fields} | settings))
    one_module = model.levels != 'separate'
    plain = model.levels == 'single' and not model.closing_update
    halt_only = one_module and not plain and info.get('no_ACT_continue', True)
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halting='halt_only' if halt_only else 'q_learning',
            halt_max_steps=info['halt_max_steps'],
            halt_exploration_prob=info['halt_exploration_prob'],
            train_q_continue=not plain,
        ),
        loss=LossConfig(count_empty_rows=True),
        train=TrainConfig(global_batch_size=1),  # the fixtures' losses are sums
    )


def load(fixture: Fixture, config: ExperimentConfig) -> Weights:
    """The weights of a fixture."""
    found = state_dict.from_official(fixture.group('param/'), config.model)
    return jax.tree.map(jnp.asarray, found)


def compare_state(
    report: Report, what: str, latent: LatentState, want: dict[str, Any], is_recurrent: bool
) -> None:
    """Compares the states in the names and layouts that the fixtures have."""
    states = {name[6:]: value for name, value in want.items() if name.startswith('carry_')}
    for name, value in states.items():
        if name in ('z_H', 'z_L'):
            state = latent.high if name == 'z_H' or latent.low is None else latent.low
            state = jnp.swapaxes(state, 0, 1) if is_recurrent else state  # (layers, rows) there
        else:  # one of several low states, z_L1 ...
            state = latent.low[:, int(name[3:]) - 1]
        report.close(f'{what}{name}', state, value, OUTPUT_TOLERANCE)


def compare_step(
    report: Report, what: str, want: dict[str, Any], config: ExperimentConfig, step: tuple
) -> None:
    """Compares everything that one ACT step gives: (state, outputs, sums, loss)."""
    latent, outputs, sums, loss = step
    for name in ('logits', 'q_halt', 'q_continue'):
        report.close(f'{what}{name}', getattr(outputs, name), want[name], OUTPUT_TOLERANCE)
    if 'preds' in want:
        report.equal(f'{what}preds', jnp.argmax(outputs.logits, -1), want['preds'])
    compare_state(report, what, latent, want, config.model.is_recurrent)
    for name in _ACCURACIES:
        got, wanted = getattr(sums, name), want[f'metric/{name}']
        if np.issubdtype(wanted.dtype, np.integer):
            report.equal(f'{what}{name}', got, wanted)
        else:
            report.close(f'{what}{name}', got, wanted, 1e-5)
    found = {'lm_loss': sums.lm_loss, 'q_halt_loss': sums.q_halt_loss, 'total': loss}
    if 'loss/q_continue_loss' in want:
        found['q_continue_loss'] = sums.q_continue_loss
    for name, got in found.items():
        report.close_relative(f'{what}{name}', got, want[f'loss/{name}'], OUTPUT_TOLERANCE)


@check('trm', arrays=('param/*', 'eval/step0/logits'))
@check('hrm_sru', arrays=('param/*', 'eval/step0/logits'))
@check('hrm_srupp', arrays=('param/*', 'eval/step0/logits'))
def act_model(fixture: Fixture, report: Report) -> None:
    """Evaluation and training steps: outputs, states, halting, refills, losses, gradients."""
    config = experiment(fixture)
    weights = load(fixture, config)
    check_evaluation(fixture, report, config, weights)
    check_training(fixture, report, config, weights)
    check_levels(fixture, report, config, weights)
    if 'signsgd/local_ids' in fixture.arrays:
        check_sign_sgd(fixture, report)


def check_evaluation(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """The evaluation calls, one ACT step each."""
    batch = batch_of(fixture.group('in/eval/'))
    rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)
    size = batch.inputs.shape[0]

    @jax.jit
    def run(latent, steps):
        latent, outputs = hrm.act_step(config.model, weights, latent, batch.inputs, rows)
        everyone = jnp.full(size, True)
        loss, sums = losses.act_loss(outputs, batch.labels, steps, everyone, None, config.loss)
        return latent, outputs, sums, loss

    latent = starts.fresh_latent(config.model, weights, size)
    for number in range(fixture.info.get('eval_calls', config.act.halt_max_steps)):
        want = fixture.group(f'eval/step{number}/')
        steps = jnp.full(size, number + 1, jnp.int32)
        latent, outputs, sums, loss = run(latent, steps)
        halted = steps >= config.act.halt_max_steps
        report.equal(f'eval/{number}/steps', steps, want['steps'])
        report.equal(f'eval/{number}/halted', halted, want['halted'])
        # The originals score halted rows only, and in evaluation all halt together, at the end.
        if not halted.all():
            none = {name: jnp.zeros_like(getattr(sums, name)) for name in _ACCURACIES}
            sums = dataclasses.replace(sums, **none)
        compare_step(report, f'eval/{number}/', want, config, (latent, outputs, sums, loss))


def check_training(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """The training calls, with gradients where the fixture has them; nothing is updated."""

    @jax.jit
    def run(params, carry, batch: Batch):
        moved = weights.replace(params=params)
        carry = act.refill(
            carry, batch, starts.initial_latent(config.model, moved, batch.inputs.shape[0])
        )
        rows = puzzle_table.puzzle_rows(moved, carry.batch.puzzle_identifiers)
        return loss_and_gradients(config, moved, rows, carry, jnp.zeros_like(carry.steps))

    first = batch_of(fixture.group('in/train0/'))
    empty = starts.empty_latent(config.model, first.inputs.shape[0])
    carry = act.initial_carry(empty, first)
    for number in range(fixture.info.get('train_calls', 1)):
        what = f'train/{number}/'
        want = fixture.group(f'train/call{number}/')
        batch = batch_of(fixture.group(f'in/train{number}/'))
        (loss, (carry, outputs, target, sums)), (grads, row_grads) = run(
            weights.params, carry, batch
        )
        report.equal(f'{what}steps', carry.steps, want['steps'])
        report.equal(f'{what}halted', carry.halted, want['halted'])
        for name in ('inputs', 'labels', 'puzzle_identifiers'):
            report.equal(f'{what}{name}', getattr(carry.batch, name), want[f'current_{name}'])
        compare_step(report, what, want, config, (carry.latent, outputs, sums, loss))
        report.equal(f'{what}has a target', target is not None, 'target_q_continue' in want)
        if target is not None:
            wanted = want['target_q_continue']
            report.close(f'{what}target_q_continue', target, wanted, OUTPUT_TOLERANCE)
        compare_gradients(fixture, report, config, number, weights.replace(params=grads), row_grads)


def compare_gradients(
    fixture: Fixture, report: Report, config: ExperimentConfig, number: int, grads: Weights,
    row_grads: jax.Array | None,
) -> None:  # fmt: skip
    """Compares gradients of the params (in the place of the params) and of the table's rows."""
    wanted = fixture.group(f'train/call{number}/grad/')
    if not wanted:
        return
    what = f'train/{number}/grad/'
    ours = state_dict.to_official(grads, config.model, prefix=OWN)
    for name, want in wanted.items():
        got = row_grads if name.endswith('puzzle_emb.local_weights') else ours[name]
        report.close_to_largest(f'{what}{tensor_names.strip_prefix(name)}', got, want,
                                GRADIENT_TOLERANCE)  # fmt: skip
    if 'compact' in fixture.info:  # small copies lack the gradients of large tensors
        return
    entries = tensor_names.entries(config.model)
    trained = {OWN + entry.name for entry in entries if entry.collection == 'params'}
    report.equal(f'{what}tensors without one there', sorted(trained - set(wanted)), [])


def check_levels(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Single applications of a level, where the fixture holds them."""
    debug = fixture.group('debug/eval0/')
    model, params = config.model, weights.params
    if model.is_recurrent:
        for name, layers in (('L_level', model.L_layers), ('H_level', model.H_layers)):
            if f'{name}_c0' in debug:
                level = sru.SruLevel(model, layers)
                given = debug[f'{name}_input_time_major'], debug[f'{name}_c0']
                variables = {'params': params[name], 'constants': weights.constants.get(name, {})}
                out, cells = level.apply(variables, *(jnp.swapaxes(x, 0, 1) for x in given))
                for what, got in (('out_time_major', out), ('c_final', cells)):
                    want = debug[f'{name}_{what}']
                    report.close(f'{name}/{what}', jnp.swapaxes(got, 0, 1), want, OUTPUT_TOLERANCE)
        return
    level = blocks.Level(model, model.L_layers)
    for name, given in debug.items():
        if name.startswith('L_level_call') and name.endswith('_in'):
            got = level.apply({'params': params['L_level']}, given, None)
            report.close(name[:-3], got, debug[f'{name[:-3]}_out'], OUTPUT_TOLERANCE)


def check_sign_sgd(fixture: Fixture, report: Report) -> None:
    """One update of the puzzle table."""
    want = fixture.group('signsgd/')
    settings = fixture.info['signsgd']
    before = jnp.asarray(want['weights_before'])
    rule = optim.row_sparse_sign_sgd(lambda _: settings['lr'], settings['weight_decay'])
    grads = optim.RowGradients(jnp.asarray(want['local_ids']), jnp.asarray(want['local_grad']))
    updates, _ = rule.update(grads, rule.init(before), before)
    after = optim.apply_row_updates(before, updates)
    report.close('sign-SGD', after, want['weights_after'], 1e-6)
