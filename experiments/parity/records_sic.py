"""Checks of SIC with one chain: train calls with both optimizers, inference, Muon, augmentation.

Source: jvdillon/sic code/model.py (TRM3), code/experiment.py, code/optimizer.py. Its samples wait
in a queue; here the order of the data is given by the puzzles that the pool of each call holds.
"""

import functools
import math
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.parity.core import loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, load
from hrm_jax import act, muon, optim, train_step
from hrm_jax.config import (
    ActConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.data import augment
from hrm_jax.interop import state_dict
from hrm_jax.model import hrm, starts
from hrm_jax.types import IGNORE_LABEL_ID, Batch, TrainState, Weights

PARAMETER_TOLERANCE = 2e-5  # of the tensor's largest: a tenth of a step of AdamW
BFLOAT16_TOLERANCE = 2e-2  # of the largest change: products are rounded in another order


def sic_experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture of SIC, in our terms."""
    info, run = fixture.info['config'], fixture.info['experiment']
    names = fixture.group('param/')
    model = ModelConfig(
        vocab_size=info['V'],
        seq_len=math.prod(info['grid']),
        num_puzzle_identifiers=1,
        levels='shared',
        block='token_mixing',
        H_cycles=info['H'],
        L_cycles=info['L'],
        L_layers=sum(name.endswith('.mlp.up_proj.weight') for name in names),
        gradient_window='last_cycle',
        hidden_size=info['D'],
        num_heads=1,
        mlp_multiple=info['multiple_of'],
        gated_unit='sigmoid_rms' if info['muon_modified'] else 'swiglu',
        head_bias=True,
        pos_encodings='none',
        puzzle_emb_ndim=0,
        register_tokens=len(names['register_tokens']),
        forward_dtype='float32',
    )
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halting='halt_only',
            halt_max_steps=info['max_steps'],
            halt_exploration_prob=run['halt_exploration_prob'],
        ),
        loss=LossConfig(
            loss_type='softmax_cross_entropy',
            label_smoothing=run['label_smoothing'],
            q_weight=run['q_halt_weight'],
        ),
        optimizer=OptimizerConfig(
            name='muon',
            lr=run['adamw_lr'],
            lr_min_ratio=0.0,
            lr_warmup_steps=0,
            schedule_start=0,
            weight_decay=run['adamw_wd'],
            grad_clip_norm=run['clip'],
            ema_decay=run['ema_decay'],
            ema_start_step=run['ema_warmup_steps'],
            muon_lr=run['muon_lr'],
            muon_weight_decay=run['muon_wd'],
            muon_momentum=run['muon_momentum'],
            muon_steps=run['ns_steps'],
            muon_dtype=fixture.info.get('ns_dtype', 'float32'),
        ),
        train=TrainConfig(global_batch_size=info['B']),
    )


def pool(want: dict[str, np.ndarray]) -> Batch:
    """The puzzles of a call; label 0 is not scored there."""
    labels = want['before_forward/labels'].astype(np.int32)
    return Batch(
        inputs=want['before_forward/inputs'].astype(np.int32),
        labels=np.where(labels == 0, IGNORE_LABEL_ID, labels),
        puzzle_identifiers=np.zeros(len(labels), np.int32),
    )


def train_state(fixture: Fixture, config: ExperimentConfig) -> TrainState:
    """The state before the first call."""
    weights = load(fixture, config)
    first = pool(fixture.group('train/call0/'))
    update = optim.weight_optimizer(config.optimizer, 1)
    return TrainState(
        step=jnp.int32(0),
        weights=weights,
        opt_state={
            'weights': update.init(weights.params),
            'puzzle_table': optim.puzzle_optimizer(config.optimizer, 1).init(None),
        },
        ema=jax.tree.map(jnp.copy, weights.params),
        carry=act.initial_carry(starts.empty_latent(config.model, len(first.inputs)), first),
        rng=jax.random.key(0),
    )


def compare_tensors(
    report: Report, what: str, weights: Weights, model: ModelConfig, wanted: dict[str, Any],
    tolerance: float,
) -> None:  # fmt: skip
    """Compares params with arrays in the names of SIC."""
    ours = state_dict.to_official(weights, model, prefix='')
    for name, want in wanted.items():
        report.close_to_largest(f'{what}{name}', ours[name], want, tolerance)


@check(
    arrays=('param/register_tokens', 'train/call0/winner_chains', 'train/call0/param_after/*'),
    fields=('config.K', 'experiment.muon_lr'),
    accepts=lambda fixture: fixture.info['config']['K'] == 1,
)
def sic_one_chain(fixture: Fixture, report: Report) -> None:
    """Train calls with updates and averages, then inference until the first halt."""
    config = sic_experiment(fixture)
    total = fixture.info['experiment']['total_train_steps']
    state = train_state(fixture, config)
    rates = optim.schedules(config.optimizer, total)

    @jax.jit
    def run(state, batch, least):
        with mock.patch.object(act, 'exploration_min_steps', return_value=least):
            initial = starts.initial_latent(config.model, state.weights, len(least))
            begun = act.refill(state.carry, batch, initial)
            found = loss_and_gradients(config, state.weights, None, begun, least)
            return found, train_step.train_step(config, total, state, batch)

    number = 0
    while want := fixture.group(f'train/call{number}/'):
        what = f'train/{number}/'
        explored = want['draw/rand0'] < config.act.halt_exploration_prob
        least = jnp.asarray(np.where(explored, want['draw/randint0'], 0), jnp.int32)
        found, (state, _) = run(state, pool(want), least)
        (loss, (carry, outputs, _, sums)), (grads, _) = found
        rows = config.train.global_batch_size
        report.close_relative(f'{what}total', loss, want['loss/total'], OUTPUT_TOLERANCE)
        mean = want['forward/losses'].astype(np.float64).sum()
        report.close_relative(f'{what}token losses', sums.lm_loss, mean, OUTPUT_TOLERANCE)
        for name, got in (('logits', outputs.logits), ('q_halt', outputs.q_halt),
                          ('z_H', carry.latent.high), ('z_L', carry.latent.low)):  # fmt: skip
            report.close(f'{what}{name}', got, want[f'forward/{name}'], GRADIENT_TOLERANCE)
        report.close_relative(
            f'{what}grad_norm', optax.global_norm(grads), want['grad_norm'], GRADIENT_TOLERANCE
        )
        moved = state.weights.replace(params=grads)
        group = functools.partial(fixture.group, f'train/call{number}/grad/')
        compare_tensors(report, f'{what}grad/', moved, config.model, group(), GRADIENT_TOLERANCE)
        wanted = fixture.group(f'train/call{number}/param_after/')
        compare_tensors(
            report, f'{what}param/', state.weights, config.model, wanted, PARAMETER_TOLERANCE
        )
        average = state.weights.replace(params=state.ema)
        wanted = fixture.group(f'train/call{number}/ema/')
        compare_tensors(report, f'{what}ema/', average, config.model, wanted, PARAMETER_TOLERANCE)
        for name, ours in (('lr_muon', 'muon_lr'), ('lr_adamw', 'lr')):
            report.close_relative(f'{what}{name}', rates[ours](number + 1), want[name], 1e-5)
        report.equal(f'{what}steps', carry.steps - 1, want['before_forward/h_step'])
        report.equal(f'{what}halted', state.carry.halted.sum(), want['metric/n_halted'])
        report.equal(f'{what}rows', rows, len(want['active_samples']))
        number += 1
    report.equal('training calls', number > 0, True)
    _compare_momentum(fixture, report, config, state)
    if 'halt_first/steps' in fixture.arrays:
        _check_inference(fixture, report, config, state.weights)


def _compare_momentum(fixture, report, config, state) -> None:
    [partitioned] = [
        part for part in jax.tree.leaves(
            state.opt_state['weights'], is_leaf=lambda x: isinstance(x, muon.MuonState)
        ) if isinstance(part, muon.MuonState)
    ]  # fmt: skip
    full = jax.tree.map(
        lambda p, m: jnp.zeros_like(p) if isinstance(m, optax.MaskedNode) else m,
        state.weights.params,
        partitioned.momentum,
    )
    wanted = fixture.group('final/muon_momentum/')
    moved = state.weights.replace(params=full)
    compare_tensors(report, 'momentum/', moved, config.model, wanted, GRADIENT_TOLERANCE)


def _check_inference(fixture, report, config, weights) -> None:
    """Each puzzle's answer at the first step whose q is above 0, else at the last step."""
    want = fixture.group('halt_first/')
    head = dict(weights.params['q_head'])
    head['bias'] = head['bias'].at[0].set(want['q_head_bias'][0])
    weights = weights.replace(params={**weights.params, 'q_head': head})
    inputs = jnp.asarray(fixture.arrays['in/eval/inputs'])
    latent = starts.fresh_latent(config.model, weights, len(inputs))
    run = jax.jit(lambda latent: hrm.act_step(config.model, weights, latent, inputs, None))
    steps = np.zeros(len(inputs), np.int64)
    answers = np.zeros(inputs.shape, np.int64)
    for number in range(1, config.act.halt_max_steps + 1):
        latent, outputs = run(latent)
        for name, got in (('logits', outputs.logits), ('q_halt', outputs.q_halt)):
            key = f'step{number - 1}/{name}'
            if key in want:
                report.close(f'halt_first/{key}', got, want[key][:, 0], GRADIENT_TOLERANCE)
        is_last = number == config.act.halt_max_steps
        stops = (steps == 0) & (np.asarray(outputs.q_halt > 0) | is_last)
        steps = np.where(stops, number, steps)
        answers = np.where(stops[:, None], outputs.logits.argmax(-1), answers)
    report.equal('halt_first/steps', steps, want['steps'])
    report.equal('halt_first/prediction', answers, want['prediction'])


@check(arrays=('muon/*',), fields=('muon.momentum', 'muon.ns_steps'))
def muon_steps(fixture: Fixture, report: Report) -> None:
    """Steps of Muon on wide, tall and stacked matrices, in float32 and in bfloat16."""
    info = fixture.info['muon']
    shapes = sorted(name.split('/')[1] for name in fixture.arrays if name.endswith('/w0'))
    for name in shapes:
        start = fixture.arrays[f'muon/{name}/w0']
        module = 'qkv_proj' if start.ndim == 3 else 'down_proj'
        for short, dtype in (('fp32', 'float32'), ('bf16', 'bfloat16')):
            rule = muon.muon(
                lambda _: info['lr'], info['momentum'], info['weight_decay'], info['ns_steps'],
                info['nesterov'], dtype, info.get('adjust', 'original'),
            )  # fmt: skip
            params = {module: {'kernel': _kernel(start)}}
            state = rule.init(params)
            for number, grad in enumerate(fixture.arrays[f'muon/{name}/grads'], start=1):
                before = _matrix(params[module]['kernel'], start.shape)
                updates, state = rule.update({module: {'kernel': _kernel(grad)}}, state, params)
                params = optax.apply_updates(params, updates)
                want = fixture.arrays[f'muon/{short}/{name}/w{number}']
                got = _matrix(params[module]['kernel'], start.shape)
                what = f'muon/{short}/{name}/{number}'
                if dtype == 'float32':
                    report.close_to_largest(what, got, want, 1e-5)
                    continue
                report.close_to_largest(what, got - before, want - before, BFLOAT16_TOLERANCE)
                params = {module: {'kernel': _kernel(want)}}  # no drift: step by step


def _kernel(x: np.ndarray) -> jax.Array:
    """A matrix, or a stack of them, in the layout of our kernels."""
    if x.ndim == 2:
        return jnp.asarray(x.T)
    return jnp.asarray(np.transpose(x, (2, 0, 1))[:, :, None])


def _matrix(x: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    x = np.asarray(x)
    return x.T if len(shape) == 2 else np.transpose(x[:, :, 0], (1, 2, 0))


@check(arrays=('augment/draw/rand', 'augment/draw/randint', 'augment/dihedral'))
def augmentation(fixture: Fixture, report: Report) -> None:
    """Digit permutation and symmetries on the fly, with the quirk of the original."""
    want = fixture.group('augment/')
    side = want['draw/rand'].shape[1]
    cells = np.arange(side * side)[None]
    ours = [augment.apply_dihedral(cells, np.array([[k]]), side)[0] for k in range(8)]
    ids = np.array([[np.array_equal(table, one) for one in ours] for table in want['dihedral']])
    report.equal('augment/symmetries', ids.sum(1), np.ones(8))
    chosen = ids.argmax(1)[want['draw/randint']][:, None]
    tables = augment.random_relabellings(want['draw/rand'], side, 'sic')
    for name in ('inputs', 'labels'):
        got = augment.relabel_and_turn(want[f'in/{name}'], tables, chosen, side)
        report.equal(f'augment/{name}', got, want[f'out/{name}'])
