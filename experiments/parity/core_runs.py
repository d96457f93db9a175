"""Checks of whole runs of the HRM core: a training trajectory, and an evaluation from disk."""

import dataclasses
import functools
from pathlib import Path
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import core_data
from experiments.parity.core import (
    FORWARD_TOLERANCE,
    METRICS,
    batch_of,
    experiment,
    load_weights,
)
from experiments.parity.registry import Fixture, Report, check
from hrm_jax import act, eval_step, optim, train_step
from hrm_jax.config import ExperimentConfig, LossConfig, OptimizerConfig
from hrm_jax.interop import state_dict, tensor_names
from hrm_jax.model import puzzle_table, starts
from hrm_jax.types import Sums, TrainState


@check('trajectory', arrays=('batches/inputs',))
def trajectory(fixture: Fixture, report: Report) -> None:
    """A short training run, from an empty carry, with both losses."""
    hyper = fixture.info['hyper']
    fields = {field.name for field in dataclasses.fields(OptimizerConfig)}
    optimizer = OptimizerConfig(**{k: v for k, v in hyper.items() if k in fields})
    for loss_name in ('stablemax', 'softmax'):
        if f'{loss_name}/loss' not in fixture.arrays:
            continue
        loss_config = LossConfig(loss_type=f'{loss_name}_cross_entropy', count_empty_rows=True)
        config = experiment(fixture, loss=loss_config, optimizer=optimizer)
        _check_run(fixture, report, config, loss_name, hyper['total_steps'])


def _check_run(
    fixture: Fixture, report: Report, config: ExperimentConfig, loss_name: str, total_steps: int
) -> None:
    model = config.model
    weights = load_weights(fixture, model)
    batches = fixture.group('batches/')
    first = batch_of({k: v[0] for k, v in batches.items()})
    empty = starts.empty_latent(model, first.inputs.shape[0])
    adam = optim.weight_optimizer(config.optimizer, total_steps)
    sign_sgd = optim.puzzle_optimizer(config.optimizer, total_steps)
    state = TrainState(
        step=jnp.int32(0),
        weights=weights,
        opt_state={
            'weights': adam.init(weights.params),
            'puzzle_table': sign_sgd.init(weights.puzzle_table),
        },
        ema=None,
        carry=act.initial_carry(empty, first),
        rng=jax.random.key(0),
    )

    @jax.jit
    def look(state, batch):  # what the step sees before its update
        carry = act.refill(
            state.carry, batch, starts.initial_latent(model, state.weights, first.inputs.shape[0])
        )
        rows = puzzle_table.puzzle_rows(state.weights, carry.batch.puzzle_identifiers)
        no_minimum = jnp.zeros_like(carry.steps)
        _, (_, outputs, target, _) = train_step.step_loss(
            config, state.weights, rows, carry, no_minimum
        )
        return outputs, target

    step = jax.jit(functools.partial(train_step.train_step, config, total_steps))
    seen: dict[str, list] = {}

    def record(**values):
        for name, value in values.items():
            seen.setdefault(name, []).append(np.asarray(value))

    rates = optim.schedules(config.optimizer, total_steps)
    for t in range(len(batches['inputs'])):
        batch = batch_of({k: v[t] for k, v in batches.items()})
        outputs, target = look(state, batch)
        state, sums = step(state, batch)
        record(q_halt=outputs.q_halt, q_cont=outputs.q_continue, target_q=target)
        record(halted=state.carry.halted, steps=state.carry.steps)
        record(cur_ids=state.carry.batch.puzzle_identifiers)
        record(lr_main=rates['lr'](t + 1), lr_emb=rates['puzzle_emb_lr'](t + 1))
        record(**{f'raw/{name}': getattr(sums, ours) for name, ours in METRICS.items()})
        named = state_dict.to_official(state.weights, model, prefix='')
        record(**{f'norm/{k}': np.linalg.norm(v.astype(np.float64)) for k, v in named.items()})

    want = fixture.group(f'{loss_name}/')
    for name in ('halted', 'steps', 'cur_ids'):
        report.equal(f'{loss_name}/{name}', np.stack(seen[name]), want[name])
    for name, tolerance in (('q_halt', 1e-3), ('q_cont', 1e-3), ('target_q', 1e-3)):
        report.close(f'{loss_name}/{name}', np.stack(seen[name]), want[name], tolerance)
    for name in ('lr_main', 'lr_emb'):
        report.close_relative(f'{loss_name}/{name}', np.stack(seen[name]), want[name], 1e-6)
    for name in METRICS:
        tolerance = 1e-3 if name.startswith('q_') else 1e-4
        got = np.stack(seen[f'raw/{name}'])
        report.close_relative(f'{loss_name}/{name}', got, want[f'raw/{name}'], tolerance)
    lm, halt, proceed = (
        np.stack(seen[f'raw/{n}']) for n in ('lm_loss', 'q_halt_loss', 'q_continue_loss')
    )
    total = lm + config.loss.q_weight * (halt + proceed)
    report.close_relative(f'{loss_name}/loss', total, want['loss'], 1e-4)
    norms = {tensor_names.strip_prefix(k[5:]): v for k, v in want.items() if k.startswith('norm/')}
    worst = max(
        np.max(np.abs(np.stack(seen[f'norm/{k}']) - v) / np.maximum(v, 1e-30))
        for k, v in norms.items()
    )
    report.below(f'{loss_name}/norms (relative)', worst, 1e-4)
    final = {tensor_names.strip_prefix(k[6:]): v for k, v in want.items() if k.startswith('final/')}
    if final:
        differences = np.concatenate(
            [(named[k].astype(np.float64) - v).ravel() for k, v in final.items()]
        )
        report.below(f'{loss_name}/final RMS', np.sqrt(np.mean(differences**2)), 1e-5)
        share = np.mean(np.abs(differences) > 1e-5)
        report.below(f'{loss_name}/final share off by 1e-5', share, 1e-2)


@check('evaluate', arrays=('dataset/*', 'result/*'))
def evaluate(fixture: Fixture, report: Report) -> None:
    """A test split read from disk, padded, answered and scored."""
    config = experiment(fixture)
    weights = load_weights(fixture, config.model)
    with tempfile.TemporaryDirectory() as folder:
        core_data.write_npy_folder(fixture, Path(folder))
        batches = list(core_data.eval_batches(Path(folder), config.train.global_batch_size))
    report.equal('number of batches', len(batches), core_data.count_batches(fixture))
    run = jax.jit(functools.partial(eval_step.eval_step, config))
    results: dict[str, list[Sums]] = {}
    predictions = []
    for i, (name, batch, count) in enumerate(batches):
        want = fixture.group(f'batch{i}/')
        report.equal(f'batch{i}/set', name, str(want['set']))
        report.equal(f'batch{i}/count', count, want['global_batch_size'])
        for field in ('inputs', 'labels', 'puzzle_identifiers'):
            report.equal(f'batch{i}/{field}', getattr(batch, field), want[field])
        result = run(weights, batch)
        results.setdefault(name, []).append(result.sums)
        predictions.append(result)
    for name, parts in results.items():
        total = jax.tree.map(lambda *x: np.sum(np.asarray(x, np.float64)), *parts)
        for metric, want in fixture.group(f'result/{name}/').items():
            got = getattr(total, METRICS[metric]) / total.count
            report.close_relative(f'{name}/{metric}', got, want, 1e-4)
    if 'all_preds/logits' in fixture.arrays:
        saved = fixture.group('all_preds/')
        tokens = np.concatenate([p.predictions for p in predictions])
        report.equal('predictions', tokens, saved['logits'].argmax(-1))
        for theirs, ours in (('q_halt_logits', 'q_halt'), ('q_continue_logits', 'q_continue')):
            got = np.concatenate([getattr(p, ours) for p in predictions])
            report.close(theirs, got, saved[theirs], FORWARD_TOLERANCE)
