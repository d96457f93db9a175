"""A page in which a digit-field model solves Sudokus: typed or pasted, no server, no network.

The weights are in the page, and the model runs in plain JavaScript (static/fields.js): 41 thousand
parameters are 0.2 MB as text, where a runtime for neural networks would be tens of megabytes.
"""

import base64
import html
import os
from typing import Any

from flax import traverse_util
import jax
import numpy as np

from hrm_jax import files
from hrm_jax.config import ModelConfig
from hrm_jax.errors import UsageError
from hrm_jax.inference.solver import Solver
from hrm_jax.visualize import document

CHAINS = 16  # starts at most, the first one from the constants
_EXAMPLES = {
    'easy': '53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79',
    'hard': '..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9',
    'very hard': '8..........36......7..9.2...5...7.......'
    '457.....1...3...1....68..85...1..9....4..',
}
# What fields.js computes.
_FORM = {
    'levels': 'shared', 'block': 'group_mixing', 'symbol_exchange': 'mean', 'symbol_input': 'roles',
    'gated_unit': 'swiglu', 'update_rate': 1.0, 'closing_update': False, 'norm_scale': False,
    'shared_symbols': True, 'q_head': True, 'pos_encodings': 'none', 'puzzle_emb_ndim': 0,
    'low_states': 1,
}  # fmt: skip

_BODY = """<main>
<div><div id="board"></div></div>
<div>
<h1>{title}</h1>
<p class="facts">{about}</p>
<div class="row"><button class="act main" id="solve">solve</button>
<button class="act" id="clear">clear</button></div>
<p id="verdict" role="status"></p>
<p class="facts" id="state">&nbsp;</p>
<div class="row"><label for="steps">steps</label>
<input type="range" id="steps" min="0" max="0" value="0"></div>
<div class="row" id="examples"></div>
<p><label for="text">Or paste a puzzle: any notation, empty cells as 0 or a dot.</label></p>
<textarea id="text" spellcheck="false"></textarea>
</div>
</main>"""


def write(path: str | os.PathLike, solver: Solver, title: str = 'A Sudoku, solved in the open'):
    """Writes the page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      solver: with a model of the form that static/fields.js computes.
      title: of the page.

    Raises:
      UsageError: the model has another form, or the puzzles are no Sudokus.
    """
    model = solver.config.model
    check(model, solver.task.name)
    tensors = tensors_of(solver)
    places, at = {}, 0
    for name, x in tensors.items():
        places[name] = {'from': at, 'size': x.size}
        at += x.size
    parameters = sum(x.size for name, x in tensors.items() if not name.endswith('_init'))
    facts = facts_of(model) | {
        'tensors': places,
        'steps': solver.config.eval_steps,
        'chains': CHAINS,
        'examples': [{'name': name, 'text': text} for name, text in _EXAMPLES.items()],
    }
    about = (
        f'A recurrent model of {parameters:,} parameters thinks about the whole board, step by '
        f'step; small digits are the candidates it still weighs. It knows rows, columns and boxes, '
        f'but no rule: it has learned them. Everything runs in this page.'
    )
    blob = np.concatenate([x.ravel() for x in tensors.values()]).astype('<f4').tobytes()
    text = document.make(
        title,
        _BODY.format(title=html.escape(title), about=about),
        facts,
        'play.css',
        ('fields.js', 'play.js'),
        data=f'<script type="text/plain" id="weights">{base64.b64encode(blob).decode()}</script>',
    )
    files.write_text(path, text)


def check(model: ModelConfig, task: str) -> None:
    """Raises UsageError where static/fields.js computes something else than the model."""
    wrong = [
        f'{name}={getattr(model, name)!r}' for name, value in _FORM.items()
        if getattr(model, name) != value
    ]  # fmt: skip
    if model.box_height == 0 or model.num_symbols * model.num_symbols != model.seq_len:
        wrong.append('a board without boxes')
    UsageError.require(
        task == 'sudoku' and not wrong,
        f'the playing page is for digit fields that mix groups, as configs/sudoku9_cpu.py; this '
        f'model of {task or "an unknown task"} has {", ".join(wrong) or "other puzzles"}.',
    )


def facts_of(model: ModelConfig) -> dict[str, Any]:
    """Sizes and schedule, under the names of fields.js."""
    return {
        'side': model.board_shape[0], 'digits': model.num_symbols, 'dim': model.hidden_size,
        'inner': model.mlp_dim, 'layers': model.L_layers, 'H_cycles': model.H_cycles,
        'L_cycles': model.L_cycles, 'epsilon': model.rms_norm_eps,
        'boxHeight': model.box_height, 'boxWidth': model.box_width,
    }  # fmt: skip


def tensors_of(solver: Solver) -> dict[str, np.ndarray]:
    """The arrays of the model by their names, float32."""
    weights = jax.device_get(solver.weights)
    tree = dict(weights.params) | dict(weights.constants)
    flat = traverse_util.flatten_dict(tree, sep='/')
    return {name: np.asarray(x, np.float32) for name, x in flat.items()}
