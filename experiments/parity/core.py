"""Checks of the HRM core: forward, losses, one train step, shapes of the published sizes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import core_data
from experiments.parity.registry import Fixture, Report, check
from hrm_jax import act, losses, train_step
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from hrm_jax.interop import state_dict, tensor_names
from hrm_jax.model import hrm, layers, puzzle_table, starts
from hrm_jax.types import Batch, Carry, LatentState, Sums, Weights

FORWARD_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-4  # of the tensor's largest
# bfloat16 keeps 8 bits: one rounding moves a value by up to 2^-9 of itself, and a step has
# some twenty roundings in a row. Bounds for one step from the original's own state: RMS
# deviation relative to the RMS of the wanted values; for Q, one sum over all channels for each
# row, relative to at least 1.
BFLOAT16_TOLERANCE = 2e-2
BFLOAT16_Q_TOLERANCE = 4e-2

METRICS = {
    'count': 'count',
    'accuracy': 'accuracy',
    'exact_accuracy': 'exact_accuracy',
    'q_halt_accuracy': 'q_halt_accuracy',
    'steps': 'steps',
    'lm_loss': 'lm_loss',
    'q_halt_loss': 'q_halt_loss',
    'q_continue_loss': 'q_continue_loss',
}


def experiment(fixture: Fixture, **sections: Any) -> ExperimentConfig:
    """The configuration that a fixture's JSON states, in our terms."""
    config = fixture.info['config']
    if config.get('causal'):
        raise ValueError('only full attention is part of HRM')
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    model = ModelConfig(**{k: v for k, v in config.items() if k in fields}, initializer='normal')
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halt_max_steps=config['halt_max_steps'],
            halt_exploration_prob=config['halt_exploration_prob'],
        ),
        train=TrainConfig(global_batch_size=config['batch_size']),
        **{'loss': LossConfig(count_empty_rows=True)} | sections,
    )


def load_weights(fixture: Fixture, model: ModelConfig) -> Weights:
    """The weights of a fixture, as arrays of ours."""
    weights = state_dict.from_official(fixture.weights(), model)
    table, dtype = weights.puzzle_table, jnp.dtype(model.forward_dtype)
    return Weights(
        params=jax.tree.map(jnp.asarray, weights.params),
        constants=jax.tree.map(lambda x: jnp.asarray(x, dtype), weights.constants),
        puzzle_table=None if table is None else jnp.asarray(table, jnp.float32),
    )


def batch_of(arrays: dict[str, np.ndarray]) -> Batch:
    return Batch(**{
        name: jnp.asarray(arrays[name], jnp.int32)
        for name in ('inputs', 'labels', 'puzzle_identifiers')
    })  # fmt: skip


def loss_and_gradients(
    config: ExperimentConfig,
    weights: Weights,
    rows: jax.Array | None,
    carry: Carry,
    min_steps: jax.Array,
    key: jax.Array | None = None,
    step: int = 0,
) -> tuple[tuple[jax.Array, Any], tuple[Any, jax.Array | None]]:
    """What ``train_step.step_loss`` returns, and its gradients: of the params, of the rows."""

    def loss(params, rows):
        moved = weights.replace(params=params)
        return train_step.step_loss(config, moved, rows, carry, min_steps, key, step)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(weights.params, rows)


def compare_metrics(report: Report, prefix: str, sums: Sums, want: dict[str, np.ndarray]) -> None:
    """Counts exactly, sums relative to the wanted value."""
    for theirs, ours in METRICS.items():
        if theirs not in want:
            continue
        got = np.asarray(getattr(sums, ours))
        if np.issubdtype(want[theirs].dtype, np.integer):
            report.equal(f'{prefix}{theirs}', got, want[theirs])
        else:
            report.close_relative(f'{prefix}{theirs}', got, want[theirs], 1e-4)


@check('forward', arrays=('batch/inputs', 'step1/logits', 'step1/z_H'))
def forward(fixture: Fixture, report: Report) -> None:
    """Evaluation-mode ACT steps; in half precision each step starts from the original's state."""
    core_data.round_trip(fixture, report)
    config = experiment(fixture)
    model = config.model
    half = model.forward_dtype != 'float32'
    weights = load_weights(fixture, model)
    batch = batch_of(fixture.group('batch/'))
    rows = puzzle_table.puzzle_rows(weights, batch.puzzle_identifiers)

    def compare(what, got, want):
        if not half:
            report.close(what, got, want, FORWARD_TOLERANCE)
            return
        got, want = np.asarray(got, np.float64), want.astype(np.float64)
        rms, scale = np.sqrt(np.mean((got - want) ** 2)), np.sqrt(np.mean(want**2))
        if '/q_' in what:
            report.below(f'{what} (relative RMS)', rms / max(scale, 1.0), BFLOAT16_Q_TOLERANCE)
        else:
            report.below(f'{what} (relative RMS)', rms / scale, BFLOAT16_TOLERANCE)

    embedded = hrm.embed(model, weights, batch.inputs, rows)
    if half:  # single roundings only: nearly every element must be the very same
        differing = np.mean(np.asarray(embedded, np.float32) != fixture.arrays['input_embeddings'])
        report.below('input_embeddings (share differing)', differing, 1e-3)
    else:
        compare('input_embeddings', embedded, fixture.arrays['input_embeddings'])
    if 'rope_cos' in fixture.arrays:
        tables = layers.rotary_tables(model.total_len, model.head_dim, model.rope_theta)
        for name, ours in zip(('rope_cos', 'rope_sin'), tables, strict=True):
            doubled = np.concatenate([ours, ours], axis=-1)
            report.close(name, doubled, fixture.arrays[name], 1e-5)

    run = jax.jit(lambda latent: hrm.act_step(model, weights, latent, batch.inputs, rows))
    empty = starts.empty_latent(model, batch.inputs.shape[0])
    carry = act.refill(
        act.initial_carry(empty, batch),
        batch,
        starts.initial_latent(config.model, weights, batch.inputs.shape[0]),
    )
    for number in range(1, 1 + sum(name.endswith('/z_H') for name in fixture.arrays)):
        want = fixture.group(f'step{number}/')
        latent, outputs = run(carry.latent)
        compare(f'step{number}/logits', outputs.logits, want['logits'])
        compare(f'step{number}/q_halt', outputs.q_halt, want['q_halt_logits'])
        compare(f'step{number}/q_continue', outputs.q_continue, want['q_continue_logits'])
        compare(f'step{number}/z_H', latent.high, want['z_H'])
        compare(f'step{number}/z_L', latent.low, want['z_L'])
        steps = carry.steps + 1
        halted = steps >= config.act.halt_max_steps
        report.equal(f'step{number}/steps', steps, want['steps'])
        report.equal(f'step{number}/halted', halted, want['halted'])
        if half:
            dtype = jnp.dtype(model.forward_dtype)
            latent = LatentState(
                high=jnp.asarray(want['z_H'], dtype), low=jnp.asarray(want['z_L'], dtype)
            )
        else:
            loss, sums = losses.act_loss(outputs, batch.labels, steps, halted, None, config.loss)
            if 'all_finish' in want:
                report.equal(f'step{number}/all_finish', halted.all(), want['all_finish'])
            report.close_relative(f'step{number}/loss', loss, want['loss'], 1e-4)
            metrics = fixture.group(f'step{number}/metrics/')
            compare_metrics(report, f'step{number}/', sums, metrics)
        carry = dataclasses.replace(carry, latent=latent, steps=steps, halted=halted)


@check('losses', arrays=('logits', 'labels'))
def token_losses(fixture: Fixture, report: Report) -> None:
    """Per-token losses and their gradients, with logits of exactly 1, 0 and a million."""
    logits, labels = fixture.arrays['logits'], fixture.arrays['labels']
    functions = {
        'stablemax': losses.stablemax_cross_entropy,
        'softmax': losses.softmax_cross_entropy,
    }
    for name, function in functions.items():
        if f'{name}/token_loss' not in fixture.arrays:
            continue
        want = fixture.arrays[f'{name}/token_loss']
        got = function(logits, labels)
        report.below(
            f'{name} (relative to 1 + loss)',
            np.max(np.abs(np.asarray(got, np.float64) - want) / (1 + np.abs(want))),
            1e-5,
        )
        gradient = jax.grad(lambda x, function=function: function(x, labels).sum())(logits)
        wanted = fixture.arrays[f'{name}/grad_of_sum']
        report.close_to_largest(f'{name} gradient', gradient, wanted, GRADIENT_TOLERANCE)


@check('train_step', arrays=('carry/z_H', 'out/logits'))
def one_train_step(fixture: Fixture, report: Report) -> None:
    """One ACT step in training mode from a given carry: targets, halting, metrics, gradients."""
    arrays = fixture.arrays
    for loss_name in ('stablemax', 'softmax'):
        if f'{loss_name}/loss' not in arrays:
            continue
        loss_config = LossConfig(loss_type=f'{loss_name}_cross_entropy', count_empty_rows=True)
        config = experiment(fixture, loss=loss_config)
        weights = load_weights(fixture, config.model)
        carry = Carry(
            latent=LatentState(high=arrays['carry/z_H'], low=arrays['carry/z_L']),
            steps=arrays['carry/steps'],
            halted=jnp.asarray(arrays['carry/halted']),
            batch=batch_of(fixture.group('carry/current_data/')),
        )
        batch = batch_of(fixture.group('batch/'))
        carry = act.refill(
            carry, batch, starts.initial_latent(config.model, weights, batch.inputs.shape[0])
        )
        ids = carry.batch.puzzle_identifiers
        rows = puzzle_table.puzzle_rows(weights, ids)

        @jax.jit
        def run(params, rows, min_steps, config=config, weights=weights, carry=carry):
            weights = weights.replace(params=params)
            return loss_and_gradients(config, weights, rows, carry, min_steps)

        min_steps = jnp.zeros_like(carry.steps)
        (loss, (new, outputs, target, sums)), (grads, row_grads) = run(
            weights.params, rows, min_steps
        )
        if loss_name == 'stablemax':
            _compare_step_outputs(report, fixture, new, outputs, target)
        scale = config.train.global_batch_size
        report.close_relative(f'{loss_name}/loss', loss * scale, arrays[f'{loss_name}/loss'], 1e-4)
        compare_metrics(report, f'{loss_name}/', sums, fixture.group(f'{loss_name}/metrics/'))
        ours = state_dict.to_official(weights.replace(params=grads), config.model, prefix='')
        for key, want in fixture.group(f'{loss_name}/grad/').items():
            name = tensor_names.strip_prefix(key)
            report.close_to_largest(
                f'{loss_name}/grad/{name}', ours[name], want, GRADIENT_TOLERANCE
            )
        row_name = f'{loss_name}/puzzle_emb_local_weights_grad'
        if row_name in arrays:
            report.close_to_largest(row_name, row_grads, arrays[row_name], GRADIENT_TOLERANCE)
            report.equal(f'{loss_name}/ids', ids, arrays[f'{loss_name}/puzzle_emb_local_ids'])
        if loss_name == 'stablemax' and 'explore/halted' in arrays:
            explore = arrays['explore/uniform_draw'] < arrays['explore/prob']
            min_steps = jnp.where(explore, arrays['explore/min_steps_draw'], 0)
            (_, (new, _, _, sums)), _ = run(weights.params, rows, min_steps)
            report.equal('explore/halted', new.halted, arrays['explore/halted'])
            compare_metrics(report, 'explore/', sums, fixture.group('explore/metrics/'))


def _compare_step_outputs(report: Report, fixture: Fixture, carry, outputs, target) -> None:
    want = fixture.group('out/')
    tolerance = FORWARD_TOLERANCE
    report.close('logits', outputs.logits, want['logits'], tolerance)
    report.close('q_halt', outputs.q_halt, want['q_halt_logits'], tolerance)
    report.close('q_continue', outputs.q_continue, want['q_continue_logits'], tolerance)
    report.close('target_q_continue', target, want['target_q_continue'], tolerance)
    report.close('carry/z_H', carry.latent.high, want['carry/z_H'], tolerance)
    report.close('carry/z_L', carry.latent.low, want['carry/z_L'], tolerance)
    report.equal('carry/steps', carry.steps, want['carry/steps'])
    report.equal('carry/halted', carry.halted, want['carry/halted'])
    for name in ('inputs', 'labels', 'puzzle_identifiers'):
        report.equal(
            f'carry/{name}', getattr(carry.batch, name), want[f'carry/current_data/{name}']
        )


@check('full_size_shapes')
def full_size_shapes(fixture: Fixture, report: Report) -> None:
    """Names, order, shapes, dtypes and counts of the published sizes."""
    for name, want in fixture.info.items():
        if not isinstance(want, dict):
            continue
        model = ModelConfig().for_dataset(
            vocab_size=want['vocab_size'],
            seq_len=want['seq_len'],
            num_puzzle_identifiers=want['num_puzzle_identifiers'],
        )
        shapes = core_data.official_shapes(model)
        listed = {
            tensor_names.strip_prefix(key): tuple(shape) for key, shape, *_ in want['state_dict']
        }
        dtypes = {tensor_names.strip_prefix(key): dtype for key, _, dtype, *_ in want['state_dict']}
        got = {key: tuple(shape) for key, (shape, _, _) in shapes.items()}
        report.equal(f'{name}/names in order', list(got) == list(listed), True)
        report.equal(f'{name}/shapes', got == listed, True)
        report.equal(f'{name}/dtypes', {k: d for k, (_, d, _) in shapes.items()} == dtypes, True)
        trained = sum(int(np.prod(s)) for s, _, kind in shapes.values() if kind == 'params')
        report.equal(f'{name}/parameters', trained, want['n_parameters'])
