"""Scores of answers that are texts: sequences of tokens, here Lisp expressions.

Only the positions that the label scores are compared: what a model writes after the end was
never trained. ``original_quirks`` gives the numbers of HRM-Lisp's tools/analyze_predictions.py
instead, which compares every position and takes the -100 of unscored labels for a token.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import random
from typing import Any

import numpy as np

from hrm_jax.errors import PredictionError

PAD_TOKEN = '<pad>'
UNKNOWN = '<unk>'
_RANGE = (-5, 5)  # values that variables take in the check of equal meaning
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    '+': lambda a, b: a + b,
    '-': lambda a, b: a - b,
    '*': lambda a, b: a * b,
    '/': lambda a, b: a // b,
}


def token_accuracy(truth: Sequence[str], answer: Sequence[str], pad: str = PAD_TOKEN) -> float:
    """Returns the share of right tokens over the common length, padding of the truth left out.

    As utils/text_metrics.py of HRM-Lisp: a longer answer is not punished; no truth gives 0.
    """
    pairs = [(t, a) for t, a in zip(truth, answer, strict=False) if t != pad]
    return sum(t == a for t, a in pairs) / max(len(pairs), 1)


def edit_distance(a: str, b: str) -> int:
    """Returns the number of insertions, deletions and substitutions from ``a`` to ``b``.

    Bit-parallel (Myers 1999, in Hyyrö's form): one step of whole-word logic per character of
    ``b``; Python's integers take the place of the machine word.
    """
    if not a or not b:
        return len(a) or len(b)
    places: dict[str, int] = {}
    for index, char in enumerate(a):
        places[char] = places.get(char, 0) | 1 << index
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    rises, falls, score = full, 0, len(a)
    for char in b:
        equal = places.get(char, 0)
        vertical = equal | falls
        diagonal = (((equal & rises) + rises) ^ rises) | equal
        up = falls | (~(diagonal | rises) & full)
        down = rises & diagonal
        score += bool(up & last) - bool(down & last)
        up, down = (up << 1 | 1) & full, (down << 1) & full
        rises = down | (~(vertical | up) & full)
        falls = up & vertical
    return score


def levenshtein_similarity(a: str, b: str) -> float:
    """Returns 1 - distance / longer length, on characters; two empty texts are equal."""
    longer = max(len(a), len(b))
    return 1.0 if a == b else 1.0 - edit_distance(a, b) / longer


def parse(tokens: Sequence[str]) -> Any:
    """Reads one prefix expression: an int, a variable's name, or [operator, left, right].

    Tokens after the expression are ignored. None: the expression is malformed.
    """
    open_lists: list[list[Any]] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token == '(':
            if position == len(tokens) or tokens[position] in ('(', ')'):
                return None
            open_lists.append([tokens[position]])
            position += 1
            continue
        if token == ')':
            return None
        value: Any = _atom(token)
        while open_lists:
            open_lists[-1].append(value)
            if len(open_lists[-1]) < 3:
                break
            if position == len(tokens) or tokens[position] != ')':
                return None
            position += 1
            value = open_lists.pop()
        else:
            return value
    return None


def _atom(token: str) -> Any:
    try:
        return int(token)
    except ValueError:
        return token


def evaluate(tree: Any, variables: dict[str, int]) -> int | None:
    """Returns the value with floor division; None where it is undefined."""
    todo: list[Any] = [tree]
    done: list[int] = []
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += [(node[0],), node[1], node[2]]
        elif isinstance(node, tuple):
            left, right = done.pop(), done.pop()
            operator = _OPERATORS.get(node[0])
            if operator is None or (node[0] == '/' and right == 0):
                return None
            done.append(operator(left, right))
        elif isinstance(node, int):
            done.append(node)
        elif node in variables:
            done.append(variables[node])
        else:
            return None
    return done.pop()


def semantically_equal(
    truth: Sequence[str],
    answer: Sequence[str],
    rng: random.Random,
    trials: int = 100,
    pad: str = PAD_TOKEN,
    original_quirks: bool = False,
) -> bool:
    """Says whether two expressions agree at random values of their variables.

    Args:
      truth, answer: tokens of prefix expressions over + - * / and single-letter variables.
      rng: draws the values, from -5..5.
      trials: assignments; those where one side is undefined do not count.
      pad: token to drop.
      original_quirks: 5 trials, then 5 others of which one must be defined.
    """
    left, right = (parse([t for t in tokens if t != pad]) for tokens in (truth, answer))
    if left is None or right is None:
        return False
    names = sorted({t for t in (*truth, *answer) if len(t) == 1 and t.isalpha()})

    def draw() -> tuple[int | None, int | None]:
        variables = {name: rng.randint(*_RANGE) for name in names}
        return evaluate(left, variables), evaluate(right, variables)

    compared = 0
    for _ in range(5 if original_quirks else trials if names else 1):
        a, b = draw()
        if a is not None and b is not None:
            compared += 1
            if a != b:
                return False
    if original_quirks:
        return any(None not in draw() for _ in range(5))
    return compared > 0


@dataclasses.dataclass(frozen=True)
class TextScores:
    """Means over examples with at least one scored token.

    Attributes:
      examples: how many were counted.
      token_accuracy, normalized_levenshtein_similarity, exact_match_ratio,
        semantic_equivalence_ratio: means, in 0..1.
      missing: examples among them without a prediction; they count as wrong in every respect.
    """

    examples: int
    token_accuracy: float
    normalized_levenshtein_similarity: float
    exact_match_ratio: float
    semantic_equivalence_ratio: float
    missing: int = 0


def analyze(
    chunks: Iterable[dict[str, np.ndarray]],
    tokens: dict[int, str],
    seed: int = 0,
    trials: int = 100,
    pad: str = PAD_TOKEN,
    original_quirks: bool = False,
    missing: Callable[[], int] = lambda: 0,
) -> TextScores:
    """Scores predictions against labels.

    Args:
      chunks: dicts with ``predictions`` and ``labels``, int [B, S]; labels below 0 are not
        scored.
      tokens: id -> token.
      seed: of the check of equal meaning.
      trials: of the same.
      pad: the padding token.
      original_quirks: the numbers of the original's tool (see the module).
      missing: asked, once all chunks are read, how many examples have no prediction.

    Raises:
      PredictionError: there is no example.
    """
    rng = random.Random(seed)
    sums, count = np.zeros(4), 0
    dropped = PAD_TOKEN if original_quirks else pad  # there a given pad is for accuracy only
    for chunk in chunks:
        for label, prediction in zip(chunk['labels'], chunk['predictions'], strict=True):
            truth = [tokens.get(int(i), UNKNOWN) for i in label]
            answer = whole = [tokens.get(int(i), UNKNOWN) for i in prediction]
            if not original_quirks:
                scored = [i >= 0 and t != pad for i, t in zip(label, truth, strict=True)]
                truth, answer = (
                    [t for t, s in zip(row, scored, strict=True) if s] for row in (truth, answer)
                )
                if not truth:
                    continue
            texts = [' '.join(t for t in row if t != dropped) for row in (truth, answer)]
            # An expression ends itself, so its meaning needs no mask.
            same = semantically_equal(truth, whole, rng, trials, dropped, original_quirks)
            # A padding token where the label wants another one is an error, not an omission.
            exact = texts[0] == texts[1] if original_quirks else truth == answer
            accuracy = token_accuracy(truth, answer, pad)
            sums += (accuracy, levenshtein_similarity(*texts), exact, same)
            count += 1
    if not count:
        raise PredictionError(
            'there must be an example with scored tokens; the predictions have none.'
        )
    lacking = missing()
    means = (float(total / (count + lacking)) for total in sums)
    return TextScores(count + lacking, *means, missing=lacking)
