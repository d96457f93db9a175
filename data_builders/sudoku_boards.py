"""Generated Sudokus with exactly one solution; test solutions never occur in training."""

import numpy as np

from data_builders import sudoku_rules, writing
from data_builders.sources import Table
from hrm_jax.errors import BuildError

GENERATED = 'generated'
# Digits left on generated boards: (fewest, most).
CLUES = {4: (5, 8), 6: (10, 16), 9: (28, 36), 16: (104, 132)}


def generate(
    size: int,
    train_count: int,
    test_count: int,
    rng: np.random.Generator,
    show: bool = False,
    fewest: int | None = None,
    most: int | None = None,
) -> dict[str, Table]:
    """Generates boards with exactly one solution; test solutions never occur in training.

    Args:
      size: digits.
      train_count, test_count: boards of each split.
      rng: draws them.
      show: a progress bar.
      fewest, most: givens that a board is to have, drawn evenly between them; None: those of
        ``CLUES``. A board whose solution would no longer be the only one keeps more.

    Raises:
      BuildError: more boards are wanted than there are, or givens that no board can have.
    """
    BuildError.require(size in CLUES, f'--size must be one of {sorted(CLUES)}; got {size}.')
    BuildError.require(
        train_count > 0 and test_count > 0, '--train-count and --test-count must be at least 1.'
    )
    low, high = CLUES[size]
    low, high = (low if fewest is None else fewest), (high if most is None else most)
    BuildError.require(
        0 < low <= high < size * size,
        f'--min-givens and --max-givens must be in 1..{size * size - 1}, in this order; got {low} '
        f'and {high}.',
    )
    counts = {'test': test_count, 'train': train_count}
    make = _generate_4 if size == 4 else _generate_by_solver
    return make(size, (low, high), counts, rng, show)


def _generate_4(
    size: int, givens: tuple[int, int], counts: dict[str, int], rng, show: bool
) -> dict[str, Table]:
    """Picks clues of the 288 solutions at random and keeps those that determine it."""
    solutions = sudoku_rules.all_solutions_4()
    order = rng.permutation(len(solutions))
    # One solution in seven is for testing.
    pools = {'test': order[: len(order) // 7], 'train': order[len(order) // 7 :]}
    low, high = givens
    boards = {}
    for split, count in counts.items():
        seen: dict[bytes, np.ndarray] = {}
        for _ in range(400):
            chosen = rng.choice(pools[split], 2048)
            clues = rng.integers(low, high + 1, len(chosen))
            kept = np.argsort(np.argsort(rng.random((len(chosen), 16)), axis=1)) < clues[:, None]
            # [boards, solutions]: how many clues a solution contradicts
            differs = (solutions[chosen][:, None] != solutions[None]) & kept[:, None]
            unique = (~differs.any(axis=2)).sum(axis=1) == 1
            for solution, mask in zip(solutions[chosen[unique]], kept[unique], strict=True):
                board = solution * mask
                seen.setdefault(board.tobytes(), np.stack([board, solution]))
            if len(seen) >= count:
                break
        else:
            raise BuildError(
                f'there are not {count} different 4x4 boards for the split {split}; got '
                f'{len(seen)}. Ask for fewer.'
            )
        pairs = np.stack(list(seen.values())[:count])
        sides = (np.ascontiguousarray(pairs[:, k]) for k in (0, 1))
        boards[split] = Table.unrated(*sides, GENERATED)
    return boards


def _generate_by_solver(
    size: int, givens: tuple[int, int], counts: dict[str, int], rng, show: bool
) -> dict[str, Table]:
    solver = sudoku_rules.solver(size)
    low, high = givens
    boards, held_out = {}, set()
    for split, count in counts.items():
        questions, answers = [], []
        for _ in writing.progress(range(count), f'generating {split}', show=show):
            solution = solver.random_solution(rng)
            while split == 'train' and solution.tobytes() in held_out:
                solution = solver.random_solution(rng)
            questions.append(solver.dig(solution, int(rng.integers(low, high + 1)), rng))
            answers.append(solution)
        if split == 'test':
            held_out = {answer.tobytes() for answer in answers}
        boards[split] = Table.unrated(np.array(questions), np.array(answers), GENERATED)
    return boards
