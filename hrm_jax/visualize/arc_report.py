"""A page of an adaptation: every task with its attempts, votes, confidence and steps."""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any, Protocol

from hrm_jax.scoring.arc_votes import Votes, to_rows
from hrm_jax.visualize import page


class Ballot(Protocol):
    """The vote on one test: its candidates, and the ACT steps of every view."""

    votes: Votes
    steps: list[float]


def write(
    path: str | os.PathLike,
    tasks: Mapping[str, Any],
    ballots: Mapping[str, Mapping[int, Ballot]],
    left_out: Mapping[str, str],
    expected: float | None = None,
) -> Path:
    """Writes the page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      tasks: name -> the task, without test outputs.
      ballots: name -> number of a test -> its vote.
      left_out: name -> why the task was not built.
      expected: share of held-out demonstrations that were right.
    """
    shown = [
        {
            'name': name,
            'tests': [
                _test(number, pair, ballots.get(name, {}).get(number))
                for number, pair in enumerate(task['test'])
            ],
            'pairs': [
                [('question', pair['input']), ('answer', pair['output'])] for pair in task['train']
            ],
        }
        for name, task in tasks.items()
    ]
    note = (
        f'Held-out demonstrations right in two attempts: {expected:.1%}.'
        if expected is not None
        else ''
    )
    if left_out:
        note += f' Left out: {", ".join(left_out)}.'
    facts = {'title': 'ARC tasks and attempts', 'tasks_shown': shown, 'note': note.strip()}
    return page.write(path, 'arc_tasks', {}, facts)


def _test(number: int, pair: Mapping[str, Any], ballot: Ballot | None) -> dict[str, Any]:
    boards: list[tuple[str, Any]] = [(f'test {number + 1}', pair['input'])]
    if ballot is None or not ballot.votes.best():
        return {'boards': boards, 'about': 'no answer'}
    best, every = ballot.votes.best(), ballot.votes.ranked()
    total = sum(one.votes for one in every)
    for place, one in enumerate(best, 1):
        caption = f'attempt {place}: {one.votes} of {total} votes, confidence {one.confidence:.1%}'
        boards.append((caption, to_rows(one.answer)))
    if len(best) == 1:
        boards.append(('attempt 2: the same', to_rows(best[0].answer)))
    steps = sum(ballot.steps) / len(ballot.steps)
    about = f'{len(every)} different answers, {steps:.3g} steps of reasoning on average'
    return {'boards': boards, 'about': about}
