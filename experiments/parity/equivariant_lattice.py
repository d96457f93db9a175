"""Checks of the lattice deduction transformer: candidate sets, their pool, and chains that restart.

The fixtures hold every random draw: views (a permutation of the symbols and one of 8 symmetries of
the board) and pins. A recorded row may come in another order than ours, as the original draws its
rows from the pool in a random one; that order is recorded too.
"""

from collections.abc import Iterator
import contextlib
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.parity.registry import Fixture, Report, check
from experiments.parity.variants_act import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE
from hrm_jax import act, optim, pool, train_step
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    LatticeConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    TrainConfig,
)
from hrm_jax.inference import early_exit, rollouts
from hrm_jax.model import hrm, lattice, starts
from hrm_jax.tasks import Sudoku
from hrm_jax.types import IGNORE_LABEL_ID, Batch, TrainState, Weights

FIRST = 2  # token of the first digit: 0 is padding, 1 an open cell


def experiment(fixture: Fixture) -> ExperimentConfig:
    """The configuration of a fixture, in our terms."""
    info = fixture.info
    sizes, step = info['config'], info.get('step_config', {})
    train, solve = info.get('train_config', {}), info.get('solve_config', {})
    weights = info.get('loss_weights', {})
    views = []
    if step.get('augment'):
        views = ['digits'] * step['permute_digits'] + ['board'] * step['augment_dihedral']
    model = ModelConfig(
        vocab_size=FIRST + sizes['n_channels'],
        seq_len=sizes['seq_len'],
        num_puzzle_identifiers=1,
        puzzle_emb_ndim=0,
        block='transformer',
        pre_norm=sizes['pre_norm'],
        levels='single',
        H_cycles=1,
        H_layers=0,
        L_cycles=sizes['n_loops'],
        L_layers=sizes['num_layers'],
        gradient_window='full',
        hidden_size=sizes['dim'],
        num_heads=sizes['n_heads'],
        expansion=sizes['ffn_mult'],
        qkv_bias=sizes['attention_bias'],
        o_bias=sizes['attention_bias'],
        pos_encodings='rope2d_pairs' if sizes['use_rope'] else 'rows+columns',
        rope_theta=sizes['rope_base'],
        board_width=sizes['grid_cols'],
        added_tokens=1,
        q_head=False,
        forward_dtype='float32',
        lattice=LatticeConfig(
            on=True,
            eliminate_below=step.get('threshold', 0.1),
            conflict_above=step.get('cls_threshold', 0.5),
            pin_temperature=step.get('temp_decide', 1.5),
            views='+'.join(views) or 'none',
        ),
    )
    steps = train.get('steps', 1)
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halting='solved', halt_exploration_prob=0, halt_max_steps=train.get('max_age', 100) + 1
        ),
        loss=LossConfig(
            loss_type='softmax_cross_entropy',
            q_weight=0.0,
            candidate_weight=weights.get('pos', train.get('bce_pos_mult', 4.0)),
            removed_weight=weights.get('neg', train.get('bce_neg_mult', 0.5)),
            choice_weight=weights.get('sm', train.get('softmax_loss_weight', 0.2)),
            conflict_weight=weights.get('cf', train.get('conflict_loss_weight', 0.1)),
        ),
        optimizer=OptimizerConfig(
            name='adamw',
            lr=train.get('lr', 1e-3),
            lr_min_ratio=0.01,
            lr_warmup_steps=int(train.get('warmup_fraction', 0) * steps),
            schedule_start=0,
            beta1=train.get('betas', (0.9, 0.95))[0],
            beta2=train.get('betas', (0.9, 0.95))[1],
            weight_decay=train.get('weight_decay', 0.1),
            grad_clip_norm=train.get('grad_clip', 1.0),
            ema_decay=train['ema_decay'] if train.get('use_ema') else 0.0,
        ),
        train=TrainConfig(global_batch_size=train.get('batch_size', 1)),
        eval=EvalConfig(
            halting='adaptive',
            save_outputs=(),
            halt_max_steps=solve.get('max_rounds', 1),
            rollouts=RolloutConfig(
                breadth=solve.get('n_chains', 1), select='first_chain', halt_together=True
            ),
        ),
    )


def to_params(named: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """Puts the tensors of a state dict, or their gradients, at our places."""
    dim, heads = model.hidden_size, (model.num_heads, model.head_dim)
    named = {name: jnp.asarray(value) for name, value in named.items()}

    def linear(name):
        return {'kernel': named[f'{name}.weight'].T, 'bias': named[f'{name}.bias']}

    def norm(name):
        return {'scale': named[f'{name}.weight'], 'bias': named[f'{name}.bias']}

    def attention(name):
        weight, bias = (
            named[f'{name}.in_proj_{kind}']
            if f'{name}.in_proj_{kind}' in named
            else jnp.concatenate([named[f'{name}.{part}_proj.{kind}'] for part in 'qkv'])
            for kind in ('weight', 'bias')
        )
        out = linear(f'{name}.out_proj')
        return {
            'qkv_proj': {
                'kernel': weight.T.reshape(dim, 3, *heads), 'bias': bias.reshape(3, *heads),
            },
            'o_proj': {'kernel': out['kernel'].reshape(*heads, dim), 'bias': out['bias']},
        }  # fmt: skip

    loop = {
        'slot': named['backbone.cls_embed'].reshape(dim),
        'slot_position': named['backbone.cls_pos'].reshape(dim),
        'norm': norm('loop_norm'),
    }
    if model.pos_encodings == 'rows+columns':
        loop['row_embed'] = named['backbone.row_embed.weight']
        loop['column_embed'] = named['backbone.col_embed.weight']
    for i in range(model.L_layers):
        block = f'backbone.layers.{i}'
        loop[f'layers_{i}'] = {
            'self_attn': attention(f'{block}.attn'),
            'mlp': {'up_proj': linear(f'{block}.ffn.fc1'), 'down_proj': linear(f'{block}.ffn.fc2')},
            'attn_norm': norm(f'{block}.norm1'),
            'mlp_norm': norm(f'{block}.norm2'),
        }
    return {
        'candidates': {
            'input_proj': linear('input_proj'),
            'loop': loop,
            'keep_head': linear('bce_head'),
            'choice_head': linear('softmax_head'),
            'conflict_head': linear('conflict_head'),
        }
    }


def load(fixture: Fixture, config: ExperimentConfig) -> Weights:
    """The weights of a fixture."""
    return Weights(to_params(fixture.group('param/'), config.model), {}, None)


def _tokens(sets_BSC: np.ndarray) -> np.ndarray:
    """Questions as tokens: a set of one is given, a full one open."""
    single = sets_BSC.sum(-1) == 1
    return np.where(single, FIRST + sets_BSC.argmax(-1), 1).astype(np.int32)


def _labels(sets_BSC: np.ndarray) -> np.ndarray:
    """Solutions as tokens; where there is none, ``IGNORE_LABEL_ID``."""
    one = sets_BSC.sum(-1) == 1
    return np.where(one, FIRST + sets_BSC.argmax(-1), IGNORE_LABEL_ID).astype(np.int32)


def _batch(x: np.ndarray, y: np.ndarray) -> Batch:
    return Batch(_tokens(x), _labels(y), np.zeros(len(x), np.int32))


def _without_key_biases(params: dict[str, Any]) -> dict[str, Any]:
    """Attention does not see a bias of the keys; its gradient is rounding, which Adam blows up."""

    def keep(path, value):
        name = jax.tree_util.keystr(path)
        if "'qkv_proj'" in name and "'bias'" in name:
            return jnp.asarray(value).at[1].set(0)
        return value

    return jax.tree_util.tree_map_with_path(keep, params)


def _compare_params(report: Report, what: str, got: Any, want: Any, tolerance: float) -> None:
    got, want = _without_key_biases(got), _without_key_biases(want)
    for path, value in jax.tree_util.tree_leaves_with_path(want):
        own = functools.reduce(lambda tree, key: tree[key.key], path, got)
        report.close_to_largest(f'{what}{jax.tree_util.keystr(path)}', own, value, tolerance)


@check('ldt', arrays=('param/input_proj.weight', 'in/orig_x', 'loss/parts'))
def forward(fixture: Fixture, report: Report) -> None:
    """Readings of every loop, losses by part, and gradients."""
    config = experiment(fixture)
    model, weights, given = config.model, load(fixture, config), fixture.group('in/')
    alive = jnp.asarray(given['state'] > 0)
    batch = jax.tree.map(jnp.asarray, _batch(given['orig_x'], given['solutions'][:, 0]))
    rows = len(alive)
    report.equal('given', ~lattice.open_cells(model, batch.inputs), given['given_mask'])
    target, conflict = jnp.asarray(given['alpha'] > 0), jnp.asarray(given['gt_conflict'])
    alone = given['solutions'].shape[1] == 1
    if alone:  # puzzles of the project have one solution; with several only the loss is compared
        report.equal('target', lattice.one_hot(model, batch.labels), target)
        report.equal('conflict', pool.has_conflict(model, alive, batch.labels), conflict)

    @jax.jit
    def run(params):
        moved = weights.replace(params=params)
        every = hrm.read_candidates(model, moved, alive, training=True, all_loops=True)
        last = hrm.read_candidates(model, moved, alive)
        open_cells = lattice.open_cells(model, batch.inputs)
        parts = pool.loss_parts(every, alive, open_cells, target, conflict, config.loss)

        def loss(params):
            moved = weights.replace(params=params)
            if not alone:
                found = hrm.read_candidates(model, moved, alive, training=True, all_loops=True)
                some = pool.loss_parts(found, alive, open_cells, target, conflict, config.loss)
                return sum(pool.weighted(some, config.loss))
            latent = starts.initial_latent(model, weights, rows).replace(high=alive)
            carry = act.initial_carry(latent, batch)
            steps = jnp.zeros(rows, jnp.int32)
            return pool.step_loss(config, moved, None, carry, steps)[0]

        return every, last, parts, jax.value_and_grad(loss)(params)

    every, last, parts, (loss, grads) = run(weights.params)
    names = {'bce': 'keep', 'softmax': 'choice', 'conflict': 'conflict'}
    for number in range(model.L_cycles):
        for theirs, ours in names.items():
            want, got = fixture.arrays[f'loop{number}/{theirs}'], getattr(every, ours)[number]
            report.close_to_largest(
                f'loop{number}/{theirs}', got.reshape(want.shape), want, OUTPUT_TOLERANCE
            )
    for theirs, ours in names.items():
        for kind, got in (('final', getattr(last, ours)), ('mean', getattr(every, ours).mean(0))):
            want = fixture.arrays[f'forward_{kind}/{theirs}']
            report.close_to_largest(
                f'forward_{kind}/{theirs}', got.reshape(want.shape), want, OUTPUT_TOLERANCE
            )
    report.close_to_largest(
        'loss/parts', jnp.stack(parts, -1), fixture.arrays['loss/parts'], OUTPUT_TOLERANCE
    )
    report.close_relative('loss/total', loss, fixture.arrays['loss/total'], OUTPUT_TOLERANCE)
    want = to_params(fixture.group('grad/'), model)
    _compare_params(report, 'grad/', grads, want, GRADIENT_TOLERANCE)


@contextlib.contextmanager
def replayed(views: list[lattice.View], pins: list[tuple[Any, Any]]) -> Iterator[None]:
    """Lets each call take the next recorded view and pin."""
    with (
        mock.patch.object(lattice, 'draw_view', side_effect=views),
        mock.patch.object(lattice, 'draw_pin', side_effect=pins),
    ):
        yield


def _view(draw: dict[str, np.ndarray], order: np.ndarray | slice = slice(None)) -> lattice.View:
    """A recorded view; ``order`` puts its rows into ours."""
    symbols, turn = draw.get('digit_perm'), draw.get('dih_idx')
    return lattice.View(
        None if symbols is None else jnp.asarray(symbols[order]),
        None if turn is None else jnp.asarray(turn[order]),
    )


def _pins(draw: dict[str, np.ndarray], decides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recorded pins, which stand for the deciding rows only, at their rows."""
    cell, symbol = np.zeros((2, len(decides)), np.int32)
    cell[decides], symbol[decides] = draw['cell'], draw['digit']
    return cell, symbol


@check('ldt', arrays=('step0/before/pool_state', 'step0/loss', 'data/batch1/x', 'cell_perms'))
def pool_training(fixture: Fixture, report: Report) -> None:
    """Train steps with their refills: losses, gradients, updates, transitions, replacement."""
    config = experiment(fixture)
    model, arrays = config.model, fixture.arrays
    report.equal('turns', lattice.turns(model.board_shape[0]), arrays['cell_perms'])
    steps = fixture.info['train_config']['steps']
    weights, rows = load(fixture, config), config.train.global_batch_size
    state = TrainState(
        step=jnp.int32(0),
        weights=weights,
        opt_state={
            'weights': optim.weight_optimizer(config.optimizer, steps).init(weights.params),
            'puzzle_table': optim.puzzle_optimizer(config.optimizer, steps).init(None),
        },
        ema=jax.tree.map(jnp.copy, weights.params) if config.optimizer.ema_decay else None,
        carry=act.initial_carry(
            starts.empty_latent(model, rows),
            Batch(*jnp.zeros((2, rows, model.seq_len), jnp.int32), jnp.zeros(rows, jnp.int32)),
        ),
        rng=jax.random.key(0),
    )

    @jax.jit
    def run(state, batch, views, pins):
        # Parts once more by themselves, for what the step does not return.
        key, zeros = jax.random.key(0), jnp.zeros(rows, jnp.int32)
        with replayed(views[:1], []):
            found = train_step.gradients(config, state, state.carry, batch, zeros, key)
        with replayed(views, [pins]):
            after, sums = train_step.train_step(config, steps, state, batch)
        with replayed(views[1:], [pins]):
            latent, inputs = found.carry.latent, found.carry.batch.inputs
            outputs = hrm.act_step(model, after.weights, latent, inputs, None, key)[1]
        return found, outputs, after, sums

    sampled = np.arange(rows)
    filled = 1  # number of the data batch that the next refill takes
    for number in range(steps):
        what, want = f'step{number}/', fixture.group(f'step{number}/')
        order = want['draw/sample_idx']
        ours = np.argsort(order)  # a recorded row of each of our rows
        incoming = _batch(arrays[f'data/batch{filled}/x'], arrays[f'data/batch{filled}/y'])
        replaced = np.asarray(state.carry.halted)
        if number and replaced.any():
            # The discarded rows, in the order of their sample, take the first new ones.
            slots = [row for row in sampled if replaced[row]]
            places = np.zeros(rows, int)
            places[slots] = np.arange(len(slots))
            incoming = jax.tree.map(lambda x, p=places: x[p], incoming)
        filled += bool(replaced.any())
        draw = fixture.group(f'{what}transition/draw/')
        moved = {n: want[f'transition/{n}'][ours] for n in ('new_state', 'conflict', 'solved')}
        decides = ~(want['transition/conflict'] | want['transition/solved'])
        pins = tuple(one[ours] for one in _pins(draw, decides))
        views = [
            _view(fixture.group(f'{what}grad_forward/draw/'), ours),
            _view(draw, ours),
        ]
        sampled, before = order, state
        found, outputs, state, sums = run(state, incoming, views, pins)
        pool_now, batch = found.carry, found.carry.batch
        alive = lattice.meet(model, pool_now.latent.high, batch.inputs)
        report.equal(f'{what}pool_state', alive, want['before/pool_state'] > 0)
        report.equal(f'{what}question', batch.inputs, _tokens(want['before/pool_orig_x']))
        solutions = want['before/pool_solutions'][:, 0]
        report.equal(f'{what}solution', batch.labels, _labels(solutions))
        report.equal(f'{what}age', pool_now.steps, want['before/pool_age'])
        conflict = pool.has_conflict(model, alive, batch.labels)
        report.equal(f'{what}conflict before', conflict[order], want['gt_conflict_pre'])
        loss = (sums.lm_loss + config.loss.conflict_weight * sums.q_halt_loss) / rows
        report.close_relative(f'{what}loss', loss, want['loss'], OUTPUT_TOLERANCE)
        rate = optim.schedules(config.optimizer, steps)['lr'](number + 1)
        report.close(f'{what}learning rate', rate, want['lr_used'], 1e-9)
        clipped = fixture.group(f'{what}grad_clipped/')
        if clipped:
            norm = optax.tree.norm(found.params)
            factor = jnp.minimum(1.0, config.optimizer.grad_clip_norm / norm)
            got = jax.tree.map(lambda g, f=factor: g * f, found.params)
            _compare_params(
                report, f'{what}grad_clipped/', got, to_params(clipped, model), GRADIENT_TOLERANCE
            )
        if after := fixture.group(f'{what}param_after/'):  # copies leave some out
            _compare_params(
                report, f'{what}param_after/', state.weights.params, to_params(after, model),
                OUTPUT_TOLERANCE,
            )  # fmt: skip
        left = lattice.meet(model, state.carry.latent.high, batch.inputs)
        report.equal(f'{what}new_state', left, moved['new_state'] > 0)
        report.equal(f'{what}detected conflict', outputs.conflict, moved['conflict'])
        solved = act.wants_to_halt(outputs.q_halt, outputs.q_continue, config.act)
        report.equal(f'{what}solved', solved, moved['solved'])
        wanted = want['transition/conflict_logit'][ours, 0]
        report.close_to_largest(f'{what}conflict', -outputs.q_halt, wanted, OUTPUT_TOLERANCE)
        later = arrays.get(f'step{number + 1}/before/pool_age')
        if later is not None:
            ages = jnp.where(state.carry.halted, 0, state.carry.steps)
            report.equal(f'{what}replaced', ages, later)
        report.equal(f'{what}step', state.step, before.step + 1)
    report.equal('pool steps', steps > 0, True)
    if state.ema is not None and (average := fixture.group('ema_after/')):
        _compare_params(report, 'ema/', state.ema, to_params(average, model), OUTPUT_TOLERANCE)


@check('ldt', arrays=('round0/state', 'result/solution', 'in/x', 'cell_perms'))
def solving(fixture: Fixture, report: Report) -> None:
    """Chains with restarts through the slots of early exit, and the one that answers."""
    config = experiment(fixture)
    model, weights = config.inference_model, load(fixture, config)
    breadth, given = config.eval.rollouts.breadth, fixture.group('in/')
    questions, rounds = _batch(given['x'], given['y']), fixture.info['rounds']
    slots = fixture.info['solve_config']['batch_size']
    hidden = jnp.full((slots, model.seq_len), IGNORE_LABEL_ID, jnp.int32)
    seen: list[int] = []
    real_step = hrm.act_step

    @jax.jit
    def run(latent, inputs, view, pins):
        with replayed([view], [pins]):
            return real_step(model, weights, latent, inputs, None, jax.random.key(0))

    def watched(_model, _weights, latent, inputs, _rows, _keys):
        """One round, with the recorded draws, compared with what the original did in it."""
        number = len(seen)
        seen.append(number)
        want, what = fixture.group(f'round{number}/'), f'round{number}/'
        draw = fixture.group(f'{what}draw/')
        decides = ~(want['conflict'] | want['solved'])
        new, outputs = run(latent, inputs, _view(draw), _pins(draw, decides))
        busy = ~want['chain_done']
        alive = lattice.meet(model, latent.high, inputs)
        report.equal(f'{what}state', alive[busy], want['state'][busy] > 0)
        report.equal(f'{what}conflict', outputs.conflict[busy], want['conflict'][busy])
        solved = act.wants_to_halt(outputs.q_halt, outputs.q_continue, config.act)
        report.equal(f'{what}solved', solved[busy], want['solved'][busy])
        wanted = want['conflict_logit'][:, 0]
        report.close_to_largest(f'{what}logit', -outputs.q_halt, wanted, OUTPUT_TOLERANCE)
        going = busy & ~want['conflict']
        report.equal(f'{what}new_state', new.high[going], want['new_state'][going] > 0)
        report.equal(f'{what}restarts', new.high[busy & want['conflict']].all(), True)
        return new, outputs

    def while_loop(goes_on, body, value):
        while goes_on(value):
            value = body(value)
        return value

    queue = Batch(
        inputs=jnp.asarray(np.repeat(questions.inputs, breadth, 0)),
        labels=hidden[: breadth * len(questions.inputs)],
        puzzle_identifiers=jnp.zeros(breadth * len(questions.inputs), jnp.int32),
    )
    with (
        mock.patch.object(early_exit.hrm, 'act_step', watched),
        mock.patch.object(early_exit.jax.lax, 'while_loop', while_loop),
    ):
        _, done, _ = early_exit.work(
            config, weights, early_exit.empty_slots(config, slots), queue,
            jnp.int32(len(queue.inputs)), jnp.int32(0), jnp.bool_(True), jax.random.key(0),
        )  # fmt: skip
    report.equal('rounds', len(seen), rounds)
    found = early_exit.Worker._on_host(done, early_exit.Sums.zeros())[0]
    task = Sudoku(model.seq_len, model.vocab_size)
    gathered = rollouts._Gathered(config, task, 'sudoku', 1)
    gathered.ask(questions.inputs, None)
    gathered.add(0, found)
    chosen = {one.number: one for [one] in gathered.complete()}
    for number in range(len(questions.inputs)):
        one = chosen[number]
        chains, pick = one.chains, one.chosen
        solved = act.wants_to_halt(chains.q_halt[pick], chains.q_continue[pick], config.act)
        report.equal(f'puzzle{number}/solved', solved, fixture.arrays['result/solved'][number])
        timeout = fixture.arrays['result/timeouts'][number]
        report.equal(f'puzzle{number}/abstained', ~solved, timeout)
        if not solved:
            continue
        wanted = fixture.arrays['result/round_solved'][number]
        report.equal(f'puzzle{number}/round', chains.steps[pick] - 1, wanted)
        wanted = _tokens(fixture.arrays['result/solution'][number])
        report.equal(f'puzzle{number}/answer', one.answer, wanted)
        right = (one.answer == questions.labels[number]).all()
        report.equal(f'puzzle{number}/right', right, fixture.arrays['result/correct'][number])
        report.equal(f'puzzle{number}/wrong', ~right, fixture.arrays['result/wrong'][number])
