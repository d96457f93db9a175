"""Checks of the path finder: forward, gradients, training, evaluation, boards, rendering."""

import functools
import io
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_builders import pathfinding
from experiments.parity.core import loss_and_gradients
from experiments.parity.registry import Fixture, Report, check
from hrm_jax import act, eval_step, optim, train_step
from hrm_jax.config import (
    ActConfig,
    ExperimentConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.interop import state_dict
from hrm_jax.model import hrm, starts
from hrm_jax.types import Batch, TrainState, Weights
from hrm_jax.visualize import paths

OUTPUT_TOLERANCE = 3e-4
GRADIENT_TOLERANCE = 1e-3  # of the tensor's largest
LOADER_BATCH = 3  # of the original's evaluation in the fixtures


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration that a fixture's JSON states, in our terms."""
    info, train = fixture.info['config'], fixture.info['train']
    rows = fixture.arrays['in/x'].shape[0]
    positions = {
        (True, True): 'rope+learned', (True, False): 'rope', (False, True): 'learned',
        (False, False): 'none',
    }[info['use_rope'], info['use_abs_pos']]  # fmt: skip
    model = ModelConfig(
        vocab_size=info['vocab_cnt'],
        seq_len=info['seq_len'],
        num_puzzle_identifiers=1,
        hidden_size=info['d_model'],
        num_heads=info['head_cnt'],
        H_layers=info['H_block_cnt'],
        L_layers=info['L_block_cnt'],
        H_cycles=info['H_cycle_cnt'],
        L_cycles=info['L_cycle_cnt'],
        expansion=info['expansion'],
        round_mlp=False,
        qkv_bias=info['bias_qkv'],
        o_bias=info['bias_o'],
        head_bias=info['head_bias'],
        norm_scale=info['elementwise_affine'],
        dropout=info['dropout'],
        attention_dropout=info['sdpa_dropout'],
        pos_encodings=positions,
        scale_learned_positions=False,
        rms_norm_eps=float(np.finfo(np.float32).eps),
        puzzle_emb_ndim=0,
        q_head=False,
        forward_dtype='float32',
        initializer='uniform',
    )
    return ExperimentConfig(
        model=model,
        act=ActConfig(halting='fixed', halt_max_steps=train['segments']),
        loss=LossConfig(loss_type='softmax_cross_entropy', q_weight=0.0),
        optimizer=OptimizerConfig(
            name='adamw',
            lr=train['lr'],
            lr_warmup_steps=0,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=train['weight_decay'],
            grad_clip_norm=train['grad_clip'] or 0.0,
        ),
        train=TrainConfig(global_batch_size=rows),
    )


def boards(inputs: np.ndarray, labels: np.ndarray) -> Batch:
    """A batch of the given boards."""
    ids = jnp.zeros(len(inputs), jnp.int32)
    return Batch(jnp.asarray(inputs, jnp.int32), jnp.asarray(labels, jnp.int32), ids)


@check('krychu', arrays=('in/x', 'eval/seg0/logits', 'train/seg0/loss'))
def path_finder(fixture: Fixture, report: Report) -> None:
    """Segments, frames, evaluation, and training with one update per segment."""
    config = experiment(fixture)
    weights = jax.tree.map(
        jnp.asarray, state_dict.from_official(fixture.group('param/'), config.model)
    )
    check_segments(fixture, report, config, weights)
    check_evaluation(fixture, report, config, weights)
    check_training(fixture, report, config, weights)


def check_segments(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Segments, and the answer before the first and after every high-level update."""
    batch = boards(fixture.arrays['in/x'], fixture.arrays['in/y'])
    model = config.model
    latent = starts.fresh_latent(model, weights, batch.inputs.shape[0])

    @jax.jit
    def segment(latent):
        def answer(latent):
            return jnp.argmax(hrm.read_logits(model, weights, latent), -1)

        frames, cycled = [answer(latent)], latent
        for _ in range(model.H_cycles):
            cycled = hrm.run_cycle(model, weights, cycled, batch.inputs, None)
            frames.append(answer(cycled))
        latent, outputs = hrm.act_step(model, weights, latent, batch.inputs, None)
        return latent, outputs, jnp.stack(frames)

    count = sum(key.startswith('eval/seg') and key.endswith('logits') for key in fixture.arrays)
    for number in range(count):
        want = fixture.group(f'eval/seg{number}/')
        latent, outputs, frames = segment(latent)
        report.close(f'eval/{number}/logits', outputs.logits, want['logits'], OUTPUT_TOLERANCE)
        report.close(f'eval/{number}/zH', latent.high, want['zH'], OUTPUT_TOLERANCE)
        report.close(f'eval/{number}/zL', latent.low, want['zL'], OUTPUT_TOLERANCE)
        report.equal(f'eval/{number}/frames', frames, want['frames'])


def check_evaluation(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Loss averaged over segments; accuracies of the last one."""
    inputs, labels = fixture.arrays['in/x'], fixture.arrays['in/y_metric']
    for key, want in fixture.group('metrics/').items():
        segments = int(key.removeprefix('segments'))
        sweep = jax.jit(functools.partial(eval_step.depth_sweep, config, max_steps=segments))
        totals = np.zeros(3)
        for first in range(0, len(inputs), LOADER_BATCH):
            part = slice(first, first + LOADER_BATCH)
            sums = sweep(weights, boards(inputs[part], labels[part]))
            totals += [sums.lm_loss.mean(), sums.accuracy[-1], sums.exact_accuracy[-1]]
        report.close(f'evaluate/{segments} segments', totals / len(inputs), want, OUTPUT_TOLERANCE)


def check_training(
    fixture: Fixture, report: Report, config: ExperimentConfig, weights: Weights
) -> None:
    """Gradients and losses of every segment, and the params after the last update."""
    batch = boards(fixture.arrays['in/x'], fixture.arrays['in/y'])
    rows = batch.inputs.shape[0]
    rule = optim.weight_optimizer(config.optimizer, 1)
    state = TrainState(
        step=jnp.int32(0),
        weights=weights,
        opt_state={
            'weights': rule.init(weights.params),
            'puzzle_table': optim.puzzle_optimizer(config.optimizer, 1).init(None),
        },
        ema=None,
        carry=act.initial_carry(starts.empty_latent(config.model, rows), batch),
        rng=jax.random.key(0),
    )

    @jax.jit
    def gradients(state):
        begun = act.refill(
            state.carry, batch, starts.initial_latent(config.model, state.weights, rows)
        )
        no_minimum = jnp.zeros(rows, jnp.int32)

        _, (grads, _) = loss_and_gradients(config, state.weights, None, begun, no_minimum)
        return state.weights.replace(params=grads)

    update = jax.jit(functools.partial(train_step.train_step, config, 1))
    losses = []
    for number in range(fixture.info['train']['segments']):
        want = fixture.group(f'train/seg{number}/')
        compare_named(report, config, f'train/{number}/grad/', gradients(state), fixture,
                      f'train/seg{number}/grad/', GRADIENT_TOLERANCE)  # fmt: skip
        state, sums = update(state, batch)
        losses.append(float(sums.lm_loss) / rows)
        report.close(f'train/{number}/loss', losses[-1], want['loss'], OUTPUT_TOLERANCE)
        for name, got in (('zH', state.carry.latent.high), ('zL', state.carry.latent.low)):
            report.close(f'train/{number}/{name}', got, want[name], OUTPUT_TOLERANCE)
    compare_named(report, config, 'train/final/', state.weights, fixture, 'train/final_param/',
                  OUTPUT_TOLERANCE)  # fmt: skip
    reported = fixture.arrays['train/epoch_loss_reported']
    report.close('train/epoch loss', np.mean(losses), reported, OUTPUT_TOLERANCE)


def compare_named(
    report: Report, config: ExperimentConfig, what: str, weights: Weights, fixture: Fixture,
    prefix: str, tolerance: float,
) -> None:  # fmt: skip
    """Compares weights (or gradients in the place of the params) by the original's names."""
    ours = state_dict.to_official(weights, config.model, prefix='')
    for name, want in fixture.group(prefix).items():
        report.close_to_largest(f'{what}{name}', ours[name], want, tolerance)


@check('krychu_boards', arrays=('board4_p30/input',))
def generated_boards(fixture: Fixture, report: Report) -> None:
    """Boards from the original's random numbers, deduplication, text, and the GIF's size."""
    for name, seed in fixture.info['seeds'].items():
        want = fixture.group(f'{name}/')
        rng = random.Random(seed)
        if name.startswith('unique_size'):
            count, size = len(want['input']), int(name.removeprefix('unique_size'))
            found = pathfinding.unique_boards(count, size, 0.3, rng)
            for part, got in zip(('input', 'target'), found, strict=True):
                report.equal(f'{name}/{part}', got, want[part])
            continue
        size, chance = (int(text) for text in name.removeprefix('board').split('_p'))
        drawn = [pathfinding.draw_board(size, chance / 100, rng) for _ in want['input']]
        for number, part in enumerate(('input', 'target', 'attempts')):
            got = np.array([board[number] for board in drawn]).reshape(want[part].shape)
            report.equal(f'{name}/{part}', got, want[part])
    for key, text in fixture.info.items():
        if key.startswith('format_board_target_of_'):
            name, _, row = key.removeprefix('format_board_target_of_').rpartition('_')
            got = paths.board_text(fixture.arrays[f'{name}/target'][int(row)].ravel())
            report.equal(f'text of {name}', np.array(got), np.array(text))
    check_animation(report, fixture.info.get('gif'))


def check_animation(report: Report, want: dict[str, Any] | None) -> None:
    """The pixels depend on the font, so only what does not is compared."""
    if want is None:
        return
    side = round((want['size'][1] - 87) / 24)
    frames = np.arange(want['n_frames'] * side * side).reshape(want['n_frames'], -1) % 5
    from PIL import Image

    with Image.open(io.BytesIO(paths.animation(frames))) as image:
        report.equal('GIF size', np.array(image.size), np.array(want['size']))
        report.equal('GIF frames', image.n_frames, want['n_frames'])
        report.equal('GIF duration', image.info['duration'], want['duration'])
        report.equal('GIF loop', image.info['loop'], want['loop'])
