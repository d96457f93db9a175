"""Every arrangement of the devices computes what one device computes.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.mesh_test

prints the whole table: every kind of KINDS on four meshes.
"""

import dataclasses
import itertools
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest

from hrm_jax import evaluate, partitioning, train_state, train_step
from hrm_jax.config import (
    ActConfig,
    EvalConfig,
    ExperimentConfig,
    LatticeConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from hrm_jax.config import model as model_config
from hrm_jax.data import records
from hrm_jax.errors import ConfigError
from hrm_jax.run import summary
from hrm_jax.types import Batch
from tests import tiny_run

STEPS, ROWS, CELLS, PUZZLES = 10, 16, 9, 24
SIZES = {
    'vocab_size': 7, 'seq_len': CELLS, 'num_puzzle_identifiers': PUZZLES, 'hidden_size': 32,
    'num_heads': 4, 'H_layers': 1, 'L_layers': 1, 'forward_dtype': 'float32',
    'puzzle_emb_ndim': 32,
}  # fmt: skip
KINDS = {
    'hrm': {},
    'trm': {'levels': 'shared', 'gradient_window': 'last_cycle', 'block': 'token_mixing'},
    'sru': {'block': 'sru', 'H_cycles': 1, 'L_cycles': 1, 'gradient_window': 'full'},
    'path': {'puzzle_emb_ndim': 0, 'q_head': False, 'norm_scale': True,
             'initial_state': 'learned', 'pos_encodings': 'rope+learned'},
    # All that is drawn, kept and compared beside the states, at once.
    'chains': {'levels': 'shared', 'gradient_window': 'last_cycle', 'initial_state': 'random_low',
               'chains': 2, 'chain_similarity': 0.9, 'align_chains': True, 'running_mean': True,
               'mean_decay': 0.5, 'update_noise': 0.05, 'update_rate': 0.9},
    'flow': {'levels': 'shared', 'gradient_window': 'last_cycle', 'initial_state': 'random',
             'flow': True, 'flow_open_token': 1, 'flow_pseudotarget_steps': 5,
             'running_mean': True, 'mean_decay': 0.5, 'low_step_noise': 0.1},
    'se_rrm': {'levels': 'single', 'gradient_window': 'last_cycle', 'q_head': False,
               'q_confidence': True, 'symbol_exchange': 'attention', 'symbol_heads': 2,
               'symbol_head_size': 8, 'added_tokens': 1, 'pos_encodings': 'rope'},
    'candidates': {'levels': 'single', 'gradient_window': 'full', 'block': 'transformer',
                   'H_cycles': 1, 'L_cycles': 2, 'q_head': False, 'added_tokens': 1,
                   'pos_encodings': 'rows+columns', 'puzzle_emb_ndim': 0, 'qkv_bias': True,
                   'lattice': LatticeConfig(on=True)},
    'fields': {'levels': 'shared', 'gradient_window': 'last_cycle', 'block': 'token_mixing',
               'symbol_exchange': 'attention_to_others', 'symbol_input': 'roles',
               'symbol_heads': 4, 'symbol_head_size': 4, 'puzzle_emb_ndim': 0},
}  # fmt: skip
HALT_ONLY = ('trm', 'chains', 'flow', 'fields')
MESHES = {
    'data 8': MeshConfig(),
    'fsdp 8': MeshConfig(fsdp=8),
    'data 2 x model 4': MeshConfig(model=4),
    'data 2 x fsdp 2 x model 2': MeshConfig(data=2, fsdp=2, model=2),
}


def experiment(kind: str, micro_batches: int = 1) -> ExperimentConfig:
    model = ModelConfig(**{**SIZES, **KINDS[kind]})
    searches, fixed = model.lattice.on, not (model.q_head or model.q_confidence)
    others = dict.fromkeys(HALT_ONLY, 'halt_only') | {'se_rrm': 'random'}
    halting = 'fixed' if fixed else others.get(kind, 'q_learning')
    if searches:
        halting = 'solved'
    return ExperimentConfig(
        model=model,
        act=ActConfig(
            halting=halting, halt_max_steps=3, halt_exploration_prob=0.0 if searches else 0.5
        ),
        loss=LossConfig(q_weight=0.0 if fixed else 0.5),
        optimizer=OptimizerConfig(
            name='adamw' if fixed else 'adam_atan2', lr=1e-4, lr_warmup_steps=5, ema_decay=0.9
        ),
        train=TrainConfig(global_batch_size=ROWS, micro_batches=micro_batches),
        eval=EvalConfig(halting='adaptive' if searches else 'max'),
    )


def batches(count: int = STEPS):
    rng = np.random.default_rng(0)
    for _ in range(count):
        inputs = rng.integers(1, 7, (ROWS, CELLS), dtype=np.int32)
        yield Batch(inputs, inputs[:, ::-1].copy(), rng.integers(0, PUZZLES, ROWS, dtype=np.int32))


def run(kind: str, devices: int, shape: MeshConfig, micro_batches: int = 1):
    """Returns losses, and the trained arrays as numpy."""
    mesh = partitioning.make_mesh(jax.devices()[:devices], shape)
    config = experiment(kind, micro_batches)
    state = train_state.create(config, mesh)
    step = train_step.make_train_step(config, STEPS, mesh)
    losses = []
    for batch in batches():
        state, sums = step(state, partitioning.put_global(batch, mesh))
        losses.append([float(sums.lm_loss), float(sums.q_halt_loss), float(sums.q_continue_loss)])
    cut = {
        jax.tree_util.keystr(path): [leaf.shape, leaf.addressable_shards[0].data.shape]
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.weights)
    }
    trained = (state.weights.params, state.ema, state.weights.puzzle_table)
    return np.array(losses), jax.device_get(trained), cut


def _compared(path, array):
    """An array without the biases of keys: softmax ignores them, so their gradient is rounding."""
    if jax.tree_util.keystr(path).endswith("['qkv_proj']['bias']"):
        return array[[0, 2]]
    return array


def difference(one, other) -> dict[str, float]:
    """Largest relative difference of the losses, and of each trained array's norm."""
    paths = jax.tree_util.tree_leaves_with_path(one[1])
    arrays = [
        (_compared(path, a), _compared(path, b))
        for (path, a), b in zip(paths, jax.tree.leaves(other[1]), strict=True)
    ]
    scale = np.maximum(np.abs(one[0]), 1e-30)
    return {
        'losses': float((np.abs(other[0] - one[0]) / scale).max()),
        'arrays': max(
            float(np.linalg.norm(b - a) / np.linalg.norm(a))
            for a, b in arrays
            if a.any() or b.any()
        ),
    }


def compare(kinds, meshes, micro_batches=(1,)):
    """Differences from one device, and what share of each array a device holds."""
    found = {}
    for kind in kinds:
        one = run(kind, 1, MeshConfig())
        for mesh, parts in itertools.product(meshes, micro_batches):
            other = run(kind, 8, MESHES[mesh], parts)
            found[f'{kind}: {mesh}, {parts}'] = difference(one, other) | {'cut': other[2]}
    return found


def test_all_meshes_and_micro_batches_give_the_numbers_of_one_device():
    """In a process of its own: the number of devices is fixed when jax starts."""
    # Quicker to compile; both sides of the comparison are compiled alike.
    environment = dict(os.environ, XLA_FLAGS='--xla_force_host_platform_device_count=8',
                       JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1')  # fmt: skip
    output = subprocess.run(
        [sys.executable, '-m', 'tests.mesh_test', 'short'],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = json.loads(output.splitlines()[-1])
    memory = found.pop('memory')
    assert memory['shard'] == memory['whole'] / 8
    assert memory['arguments'] < 0.25 * memory['whole']
    # Neither a dense gradient of the table nor a gathered copy of it fits in here.
    assert memory['temporary'] < 0.5 * memory['shard']
    one, eight = found.pop('evaluations')
    assert one.keys() == eight.keys()
    for name, value in one.items():
        exact = name.endswith(('accuracy', 'steps'))
        assert eight[name] == (value if exact else pytest.approx(value, rel=1e-6)), name
    assert len(found) == 12
    for name, seen in found.items():
        assert seen['losses'] < 1e-5, name
        assert seen['arrays'] < 1e-5, name

    def share(name, part):
        (sizes,) = [v for k, v in found[name]['cut'].items() if k.endswith(part)]
        return np.prod(sizes[1]) / np.prod(sizes[0])

    output = "['H_level']['layers_0']['self_attn']['o_proj']['kernel']"
    kernel = "['H_level']['layers_0']['mlp']['gate_up_proj']['kernel']"
    assert share('hrm: fsdp 8, 1', kernel) == 1 / 8
    assert share('hrm: data 2 x model 4, 1', kernel) == 1 / 4
    assert share('hrm: data 2 x fsdp 2 x model 2, 1', kernel) == 1 / 4
    assert share('hrm: data 2 x fsdp 2 x model 2, 1', output) == 1 / 4
    assert share('hrm: data 2 x model 4, 1', '.puzzle_table') == 1 / 8


def evaluation(folder: Path, devices: int) -> dict[str, float]:
    """Metrics of a test set of 10 puzzles in batches of 8."""
    config = tiny_run.config(folder, model={'forward_dtype': 'float32'})
    dataset = records.load(folder, 'test')
    facts = dataset.metadata
    model = config.model.for_dataset(
        vocab_size=facts.vocab_size,
        seq_len=facts.seq_len,
        num_puzzle_identifiers=facts.num_puzzle_identifiers,
    )
    config = dataclasses.replace(config, model=model)
    mesh = partitioning.make_mesh(jax.devices()[:devices])
    state = train_state.create(config, mesh)
    step = evaluate.make_step(config, mesh)
    return evaluate.evaluate(config, step, state.weights, dataset, mesh)


def evaluations() -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_run.write_dataset(Path(folder) / 'data')
        return [evaluation(data, devices) for devices in (1, 8)]


def table_memory(rows: int = 2**16) -> dict[str, int]:
    """Bytes per device of a train step whose puzzle table is cut over 8 devices."""
    config = experiment('hrm')
    model = dataclasses.replace(config.model, num_puzzle_identifiers=rows)
    config, mesh = dataclasses.replace(config, model=model), partitioning.make_mesh()
    state = train_state.abstract(config, mesh)
    step = train_step.make_train_step(config, STEPS, mesh)
    memory = step.lower(state, summary.abstract_batch(config, mesh)).compile().memory_analysis()
    table = state.weights.puzzle_table
    shard = table.sharding.shard_shape(table.shape)
    return {
        'shard': int(np.prod(shard)) * 4,
        'whole': table.size * 4,
        'arguments': memory.argument_size_in_bytes,
        'temporary': memory.temp_size_in_bytes,
    }


def test_micro_batches_on_one_device():
    one, parts = run('hrm', 1, MeshConfig()), run('hrm', 1, MeshConfig(), 4)
    found = difference(one, parts)
    assert found['losses'] < 1e-5
    assert found['arrays'] < 1e-5


@pytest.mark.parametrize(('shape', 'message'), [
    (MeshConfig(data=3), r'multiply to the number of devices, 1; got mesh.data=3'),
    (MeshConfig(model=2), r'needs a multiple of 2'),
], ids=['fixed', 'rest'])  # fmt: skip
def test_a_mesh_of_another_number_of_devices_is_refused(shape, message):
    with pytest.raises(ConfigError, match=message):
        partitioning.make_mesh(jax.devices()[:1], shape)


def test_a_mesh_must_make_sense():
    with pytest.raises(ConfigError, match='only one axis'):
        MeshConfig(data=-1, fsdp=-1)
    with pytest.raises(ConfigError, match='above 0'):
        MeshConfig(model=0)


class FakeMesh:
    shape = {'data': 1, 'fsdp': 2, 'model': 3}


def test_what_does_not_divide_is_refused():
    config = experiment('hrm')
    with pytest.raises(ValueError, match=r'3 micro-batches times the 2 devices that share'):
        partitioning.check_batch_size('train.global_batch_size', 16, FakeMesh(), 3)
    with pytest.raises(ValueError, match=r'must be a multiple of mesh.model .* 256 and 3'):
        partitioning.check_model(config.model, FakeMesh())
    heads = dataclasses.replace(config.model, intermediate_size=96)
    with pytest.raises(ValueError, match=r'model.num_heads must be a multiple'):
        partitioning.check_model(heads, FakeMesh())


def test_a_large_puzzle_table_is_padded_the_same_for_every_mesh(monkeypatch):
    monkeypatch.setattr(model_config, 'LARGE_TABLE', PUZZLES)
    state = train_state.abstract(experiment('hrm'), partitioning.make_mesh(jax.devices()[:1]))
    assert state.weights.puzzle_table.shape == (model_config.TABLE_MULTIPLE, 32)


if __name__ == '__main__':
    model_config.LARGE_TABLE, model_config.TABLE_MULTIPLE = PUZZLES, 16
    if sys.argv[1:] == ['short']:
        table = compare(['hrm'], list(MESHES)[1:])
        table |= compare(list(KINDS)[1:], list(MESHES)[3:])
        table |= compare(['hrm'], list(MESHES)[3:], [2])
        model_config.LARGE_TABLE = 2**16
        print(json.dumps(table | {'memory': table_memory(), 'evaluations': evaluations()}))
    else:
        for name, seen in compare(KINDS, MESHES).items():
            text = f'{name:32} losses {seen["losses"]:.1e}  arrays {seen["arrays"]:.1e}'
            print(text, flush=True)
