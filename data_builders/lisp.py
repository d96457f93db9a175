"""Builder of Lisp data sets: simplification of small arithmetic expressions in Lisp notation.

The set of adminiavs/HRM-Lisp (dataset/build_lisp_dataset.py): random full trees over + * - /,
digits and x, y, z; the answer is the expression after one pass of simplification. This is the
data set's own simplifier; the interpreter's (hrm_jax/lisp) has other rules.
"""

import json
import pathlib
import random
import time
from typing import Any

import numpy as np

from data_builders import writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError

PAD = '<pad>'
_DEEPEST = 16
OPERATORS = ('+', '*', '-', '/')
VARIABLES = ('x', 'y', 'z')
EXAMPLES = """examples:
  python -m data_builders lisp --output-dir data/lisp-simplification
  python -m data_builders lisp --output-dir data/lisp-deep --max-depth 5 --seq-len 130
"""

# A number, a variable, or (operator, left, right).
Expression = int | str | tuple


@settings
class Options(WriterOptions):
    """Settings of a Lisp data set."""

    seed: int = option(42, help='seed of the expressions')
    num_samples: int = option(
        10000, help='different expressions; the first nine of ten are for training'
    )
    max_depth: int = option(3, help='depth of the deepest trees; values below 3 count as 3')
    seq_len: int = option(
        100, help='tokens of a row; longer expressions are an error (the original truncates)'
    )


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a Lisp data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: an expression longer than a row, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    count, seq_len = options.num_samples, options.seq_len
    BuildError.require(count >= 10, f'--num-samples must be at least 10; got {count}.')
    BuildError.require(
        options.max_depth <= _DEEPEST,
        f'--max-depth must be at most {_DEEPEST}: every level doubles an expression; got '
        f'{options.max_depth}.',
    )
    writing.require_memory(
        4 * count * seq_len,
        f'{count:,} expressions (--num-samples) of {seq_len:,} tokens (--seq-len)',
    )
    pairs = draw(count, options.max_depth, random.Random(options.seed), options.show)
    longest = max(len(tokens(side)) for pair in pairs for side in pair)
    BuildError.require(
        longest <= seq_len,
        f'the longest expression has {longest} tokens and --seq-len is {seq_len}. Raise '
        f'--seq-len or lower --max-depth.',
    )
    vocabulary = make_vocabulary(pairs)
    inputs, labels = encode(pairs, vocabulary, seq_len)
    num_train = int(count * 0.9)
    splits = {
        split: writing.one_set(
            PuzzleSet.of_examples(inputs[part], labels[part]),
            vocab_size=len(vocabulary) + 1, task='lisp',
        )
        for split, part in (('train', slice(0, num_train)), ('test', slice(num_train, None)))
    }  # fmt: skip

    def write_vocabulary(folder: pathlib.Path) -> None:
        (folder / 'vocab.json').write_text(json.dumps({**vocabulary, PAD: 0}))

    return writing.write_dataset(
        output, 'lisp', splits, options, sources=[{'path': 'generated'}], started=started,
        also=write_vocabulary,
    )  # fmt: skip


def draw(
    count: int, max_depth: int, rng: random.Random, show: bool = False
) -> list[tuple[Expression, Expression]]:
    """Draws different expressions with their simplified forms, in the original's order."""
    seen, pairs = set(), []
    bar = iter(writing.progress(range(count), 'generating', show=show))
    while len(pairs) < count:
        depth = rng.randint(2, max(max_depth, 3))
        expression = _random_tree(0, depth, rng)
        text = show_expression(expression)
        if text not in seen:
            seen.add(text)
            pairs.append((expression, simplify(expression)))
            next(bar)
    return pairs


def _random_tree(level: int, depth: int, rng: random.Random) -> Expression:
    if level >= depth:
        return rng.randint(0, 9) if rng.random() < 0.5 else rng.choice(VARIABLES)
    operator = rng.choice(OPERATORS)
    left = _random_tree(level + 1, depth, rng)
    right = _random_tree(level + 1, depth, rng)
    while operator == '/' and simplify(right) == 0:
        right = _random_tree(level + 1, depth, rng)
    return operator, left, right


def simplify(expression: Expression) -> Expression:
    """Simplifies an expression in one pass from the leaves up.

    Two numbers are folded (division floors, division by 0 stays); neutral elements vanish;
    0 times anything is 0; equal sides give 0 under - and 1 under /. Nothing else is rewritten.
    """
    if not isinstance(expression, tuple):
        return expression
    operator, left, right = expression[0], simplify(expression[1]), simplify(expression[2])
    numbers = isinstance(left, int) and isinstance(right, int)
    if operator == '+':
        if numbers:
            return left + right
        if left == 0 or right == 0:
            return right if left == 0 else left
    elif operator == '*':
        if numbers:
            return left * right
        if left == 0 or right == 0:
            return 0
        if left == 1 or right == 1:
            return right if left == 1 else left
    elif operator == '-':
        if numbers:
            return left - right
        if right == 0:
            return left
        if left == right:
            return 0
    elif operator == '/':
        if numbers:
            return left // right if right else (operator, left, right)
        if right == 1:
            return left
        if left == right:
            return 1
    return operator, left, right


def tokens(expression: Expression) -> list[str]:
    """Returns the tokens of an expression; a whole number with its sign is one token."""
    if not isinstance(expression, tuple):
        return [str(expression)]
    operator, left, right = expression
    return ['(', operator, *tokens(left), *tokens(right), ')']


def show_expression(expression: Expression) -> str:
    """Writes an expression as Lisp text."""
    if not isinstance(expression, tuple):
        return str(expression)
    return f'({expression[0]} {show_expression(expression[1])} {show_expression(expression[2])})'


def parse(text: str) -> Expression:
    """Parses the text of ``show_expression``; unknown operators are kept."""
    words = text.replace('(', ' ( ').replace(')', ' ) ').split()

    def read() -> Expression:
        word = words.pop(0)
        if word != '(':
            return int(word) if word.lstrip('-').isdigit() else word
        parts = [words.pop(0), read(), read()]
        words.pop(0)
        return tuple(parts)

    return read()


def make_vocabulary(pairs: list[tuple[Expression, Expression]]) -> dict[str, int]:
    """Numbers all tokens of questions and answers from 1, in sorted order."""
    words = {token for pair in pairs for side in pair for token in tokens(side)}
    return {token: k for k, token in enumerate(sorted(words), start=1)}


def encode(
    pairs: list[tuple[Expression, Expression]], vocabulary: dict[str, int], seq_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns token rows [N, seq_len] of questions and answers, truncated to the row's length."""
    dtype = np.uint8 if len(vocabulary) < 256 else np.uint16
    rows = np.zeros((2, len(pairs), seq_len), dtype)
    for k, pair in enumerate(pairs):
        for side in range(2):
            ids = [vocabulary[token] for token in tokens(pair[side])][:seq_len]
            rows[side, k, : len(ids)] = ids
    return rows[0], rows[1]
