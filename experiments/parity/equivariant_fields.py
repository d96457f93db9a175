"""Checks of the digit-field model: a state for every digit and cell, random starts, noise, anchors.

The fixtures are the project's reading of the original, which was not run. They hold every random
draw; noise comes in the order of the updates, so the loops of the schedule are written out while a
training step is traced.
"""

from collections.abc import Iterator
import contextlib
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.core import loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from hrm_jax import act, anchors
from hrm_jax.config import ActConfig, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from hrm_jax.model import draws, hrm, recursion, starts
from hrm_jax.types import Batch, LatentState, Weights

FIRST = 2  # token of the first digit: 0 is padding, 1 an empty cell
_KEY = jax.random.key(0)


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture, in our terms."""
    info = fixture.info['config']
    attends = info['coupling'] == 'attn'
    cycles = {'levels': 'shared', 'L_cycles': info['L']}
    if info['single']:  # as many updates of the one state as there are of two
        cycles = {'levels': 'single', 'L_cycles': info['L'] + 1}
    model = ModelConfig(
        vocab_size=FIRST + info['F'],
        seq_len=info['S'],
        num_puzzle_identifiers=1,
        puzzle_emb_ndim=0,
        H_cycles=info['H'],
        H_layers=0,
        L_layers=info['layers'],
        hidden_size=info['w'],
        num_heads=info['w'] // info['t_dk'] if 't_dk' in info else 1,
        block={'mlp': 'token_mixing', 'attn': 'attention'}[info['token']],
        pos_encodings={'mlp': 'none', 'attn': 'rope2d'}[info['token']],
        expansion=info['expansion'],
        gradient_window='last_cycle',
        symbol_exchange={'mean': 'mean', 'attn': 'attention_to_others'}[info['coupling']],
        symbol_input='roles',
        symbol_heads=info['c_heads'] if attends else 0,
        symbol_head_size=info['c_dk'] if attends else 0,
        first_symbol=FIRST,
        initial_state='random_in_training',
        start_distribution='normal',
        high_start_std=info['sigma'],
        low_start_std=info['sigma'],
        update_rate=1 - info['lam'],
        update_noise=info['beta'],
        forward_dtype='float32',
        **cycles,
    )
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halting='halt_only',
            halt_max_steps=info['T'],
            halt_exploration_prob=info['explore'],
        ),
        loss=LossConfig(
            anchor_weight=1.0,
            anchor_share=info['fpa_frac'],
            anchor_steps=info['fpa_k'],
            anchor_corruption=info['fpa_eps'],
        ),
        train=TrainConfig(global_batch_size=info['B']),
    )


def to_params(named: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """Puts the fixture's matrices, [in, out], at our places."""

    def kernel(name, *shape):
        return {'kernel': jnp.asarray(named[name]).reshape(shape)}

    dim, level = model.hidden_size, {}
    for i in range(model.L_layers):
        block = f'block{i}/'

        def gated(gate_up, down, width, block=block):
            inner = len(named[block + down])
            return {
                'gate_up_proj': kernel(block + gate_up, width, 2, inner),
                'down_proj': kernel(block + down, inner, width),
            }

        layer = {'mlp': gated('gate_up', 'down', dim)}
        if model.block == 'attention':
            heads = (model.num_heads, model.head_dim)
            layer['self_attn'] = {
                'qkv_proj': kernel(f'{block}att_qkv', dim, 3, *heads),
                'o_proj': kernel(f'{block}att_o', *heads, dim),
            }
        else:
            layer['mlp_t'] = gated('tok_gate_up', 'tok_down', model.seq_len)
        if model.symbol_exchange == 'mean':
            layer['symbol_exchange'] = {'v_proj': kernel(f'{block}fc', dim, dim)}
        else:
            heads = (model.symbol_heads, model.symbol_head_size)
            both = [jnp.reshape(named[f'{block}{name}'], (dim, *heads)) for name in ('cq', 'ck')]
            layer['symbol_exchange'] = {
                'qk_proj': {'kernel': jnp.stack(both, 1)},
                'v_proj': kernel(f'{block}fc', dim, 1, heads[0], dim // heads[0]),
            }
        level[f'layers_{i}'] = layer
    return {
        'L_level': level,
        'embed_symbols': {'roles': jnp.asarray(named['role_emb'])},
        'lm_head': {'each': kernel('readout', dim, 1)},
        'q_head': {**kernel('q_w', dim, 2), 'bias': jnp.asarray(named['q_b'])},
    }


def load(fixture: Fixture, config: ExperimentConfig) -> Weights:
    """The weights of a fixture."""
    buffers = fixture.group('buffer/')
    names = {'H0': 'H_init', 'L0': 'L_init'}
    if config.model.levels == 'single':
        del names['L0']
    constants = {ours: jnp.asarray(buffers[name]) for name, ours in names.items()}
    params = to_params(fixture.group('param/'), config.model)
    return Weights(params, constants, None)


def boards(x: np.ndarray, y: np.ndarray) -> Batch:
    """Their digits, 0 for an empty cell, as tokens."""
    return Batch(
        inputs=jnp.asarray(x, jnp.int32) + 1,
        labels=jnp.asarray(y, jnp.int32) + 1,
        puzzle_identifiers=jnp.zeros(len(x), jnp.int32),
    )


@contextlib.contextmanager
def replayed(noise: jax.Array) -> Iterator[None]:
    """Lets each update take the next recorded noise, every update of a schedule traced."""
    remaining = iter(range(len(noise)))

    def repeat(step, state, times, unroll):
        del unroll
        for number in range(times):
            state = step(state, number)
        return state

    def normal(key, shape, dtype=jnp.float32):
        del key
        return noise[next(remaining)].reshape(shape).astype(dtype)

    with (
        mock.patch.object(recursion, '_repeat', repeat),
        mock.patch.object(draws, 'normal', normal),
    ):
        yield


def _state(z: np.ndarray, model: ModelConfig) -> LatentState:
    """Recorded starts [B, 2, F, S, w] as a state."""
    high, low = jnp.asarray(z[:, 0]), jnp.asarray(z[:, 1])
    return LatentState(high=high, low=None if model.levels == 'single' else low)


def _compare(report: Report, what: str, outputs, latent: LatentState, want: dict) -> None:
    found = {
        'logits': outputs.logits[..., FIRST:],
        'q': jnp.stack([outputs.q_halt, outputs.q_continue], -1),
        'zH': latent.high,
    } | ({} if latent.low is None else {'zL': latent.low})
    for name, got in found.items():
        if name in want or name == 'logits':  # copies leave states out
            report.close_to_largest(f'{what}{name}', got, want[name], OUTPUT_TOLERANCE)
    report.equal(f'{what}other tokens', bool((outputs.logits[..., :FIRST] == -1e4).all()), True)


@check('dft', arrays=('param/role_emb', 'eval/step0/logits'))
def digit_fields(fixture: Fixture, report: Report) -> None:
    """Evaluation, renamed digits, restarts and their choice, training with anchors."""
    config = experiment(fixture)
    weights = load(fixture, config)
    model = config.inference_model
    model = ModelConfig(**{**vars(model), 'update_noise': 0.0})  # evaluation draws nothing

    @jax.jit
    def step(latent, inputs):
        return hrm.act_step(model, weights, latent, inputs, None)

    def run(prefix, latent, inputs):
        """Compares each step below a prefix; the mean size of the last three changes."""
        changes, found, number = [], [], 0
        while want := fixture.group(f'{prefix}step{number}/'):
            before = latent
            latent, outputs = step(latent, inputs)
            _compare(report, f'{prefix}{number}/', outputs, latent, want)
            moved = jax.tree.map(lambda a, b: jnp.abs(a - b).mean((1, 2, 3)), latent, before)
            # Of both states; the one-state model keeps a second one, which never moves.
            changes.append(sum(jax.tree.leaves(moved)) / 2)
            found.append(outputs.logits)
            number += 1
        residual = np.mean(changes[-3:], axis=0)
        wanted = fixture.arrays[f'{prefix}residual_last3']
        report.close_to_largest(f'{prefix}residual', residual, wanted, OUTPUT_TOLERANCE)
        return residual, found

    given = fixture.group('in/eval/')
    batch = boards(given['x'], given['y'])
    _, plain = run('eval/', starts.fresh_latent(model, weights, len(batch.inputs)), batch.inputs)
    if 'equi/perm' in fixture.arrays:
        renamed = boards(fixture.arrays['equi/x'], given['y'])
        fresh = starts.fresh_latent(model, weights, len(batch.inputs))
        _, other = run('equi/', fresh, renamed.inputs)
        perm = fixture.arrays['equi/perm'] + FIRST
        for number, (one, two) in enumerate(zip(plain, other, strict=True)):
            largest = jnp.abs(one[..., FIRST:]).max()
            difference = jnp.abs(two[..., perm] - one[..., FIRST:]).max() / largest
            report.below(f'equi/{number}/renamed logits', difference, 1e-4)
    drawn = fixture.arrays['restart/draw/z0']
    scores = [
        run(f'restart/draw{number}/', _state(start[None], model), batch.inputs[:1])[0][0]
        for number, start in enumerate(drawn)
    ]
    wanted = fixture.arrays['restart/scores']
    report.close_to_largest('restart/scores', np.array(scores), wanted, OUTPUT_TOLERANCE)
    report.equal('restart/chosen', np.argmin(scores), fixture.arrays['restart/chosen'])
    check_training(fixture, report, config, weights)


def check_training(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Training calls with starts, noise, halting and anchors; nothing is updated."""
    model = config.model
    given = fixture.group('in/train0/')
    first = boards(given['x'], given['y'])
    rows = len(first.inputs)
    carry = act.initial_carry(starts.empty_latent(model, rows), first)

    def corrupt(draw):
        def replaced(batch, rate, uniform, symbols, first_symbol):
            del rate, uniform, symbols
            return corrupted(
                batch, draw['fpa_rate'], draw['fpa_uniform'], draw['fpa_digit'] + 1, first_symbol
            )

        return replaced

    corrupted = anchors.corrupt

    @jax.jit
    def run(params, carry, least, draw):
        moved = weights.replace(params=params)
        # The anchored rows run after the whole batch.
        noise = [*draw['noise'], *draw['fpa_noise']]
        with replayed(noise), mock.patch.object(anchors, 'corrupt', corrupt(draw)):
            return loss_and_gradients(config, moved, None, carry, least, _KEY)

    number = 0
    while want := fixture.group(f'train/call{number}/'):
        what = f'train/{number}/'
        given, draw = (
            fixture.group(f'in/train{number}/'),
            fixture.group(f'train/call{number}/draw/'),
        )
        draw['noise'], draw['fpa_noise'] = (
            draw[name].astype(np.float32) for name in ('noise', 'fpa_noise')
        )
        report.equal(f'{what}rows that begin', carry.halted, want['rows_reset'])
        start = _state(draw['z0'], model)
        carry = act.refill(carry, boards(given['x'], given['y']), start)
        explored = draw['explore_uniform'] < config.act.halt_exploration_prob
        least = jnp.asarray(np.where(explored, draw['explore_min'], 0), jnp.int32)
        anchored = anchors.number_of_rows(rows, config.loss)
        head = jax.tree.map(lambda x, n=anchored: x[:n], carry.batch)
        answers = anchors.corrupt(
            head, draw['fpa_rate'], draw['fpa_uniform'], draw['fpa_digit'] + 1, FIRST
        )
        report.equal(f'{what}corrupted answers', answers - 1, want['fpa_corrupted'])
        (loss, (carry, outputs, _, sums)), (grads, _) = run(weights.params, carry, least, draw)
        for name in ('steps', 'halted'):
            report.equal(f'{what}{name}', getattr(carry, name), want[name])
        for name, got in (('x', carry.batch.inputs), ('y', carry.batch.labels)):
            report.equal(f'{what}{name}', got - 1, want[name])
        right = (jnp.argmax(outputs.logits, -1) == carry.batch.labels).all(-1)
        report.equal(f'{what}exact', right, want['exact'])
        _compare(report, what, outputs, carry.latent, want)
        without = (sums.lm_loss + config.loss.q_weight * sums.q_halt_loss) / rows
        for name, got in (('total', loss), ('ce', sums.lm_loss / rows),
                          ('q_bce', sums.q_halt_loss / rows), ('fpa', loss - without)):  # fmt: skip
            report.close_relative(f'{what}{name}', got, want[f'loss/{name}'], OUTPUT_TOLERANCE)
        wanted = fixture.group(f'train/call{number}/grad/')
        places = to_params(wanted, model) if wanted else {}
        for path, value in jax.tree_util.tree_leaves_with_path(places):
            got = grads
            for key in path:
                got = got[key.key]
            name = f'{what}grad/{jax.tree_util.keystr(path)}'
            report.close_to_largest(name, got, value, GRADIENT_TOLERANCE)
        number += 1
    report.equal('training calls', number > 0, True)
