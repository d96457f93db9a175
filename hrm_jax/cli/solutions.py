"""The answers of ``hrm-jax solve`` as boards, lines, JSON, pages and pictures."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from hrm_jax import files

if TYPE_CHECKING:  # numpy and JAX are imported when a puzzle is answered, not for --help
    import numpy as np

    from hrm_jax.inference.arc import ArcAnswer
    from hrm_jax.inference.solver import Solution, Solver

COLUMNS = ('answer', 'confidence', 'steps', 'status')
# Boards that a search for second solutions may look at: one puzzle may take a second, each of
# many a few milliseconds.
_NODES_OF_ONE, _NODES_OF_MANY = 50_000, 300
_TRACED_AT_ONCE = 64


@dataclasses.dataclass
class Entry:
    """One puzzle that was given, or a line that is none.

    Attributes:
      text: as it was given.
      tokens: of the puzzle; None where it is none.
      error: why it cannot be read.
      labels: the known answer, int [S].
      identifier: row of the puzzle table.
      solution: the answer, once there is one.
    """

    text: str
    tokens: 'np.ndarray | None' = None
    error: str = ''
    labels: 'np.ndarray | None' = None
    identifier: int = 0
    solution: 'Solution | None' = None


class Show:
    """Shows solved puzzles.

    Args:
      solver: that solved them.
      form: of ``solve.FORMS``.
      output: file to write; None: standard output, or ``solution.FORM`` for pictures.
      steps: ACT steps of pictures; 0: as trained.
      header: whether tables begin with the names of their columns.
    """

    def __init__(self, solver: 'Solver', form: str, output: str | None, steps: int, header: bool):
        self._solver, self._form, self._output = solver, form, output
        self._steps, self._header = steps, header

    def __call__(self, entries: Sequence[Entry], as_table: bool) -> None:
        """Prints or writes the entries; ``as_table``: one line for each."""
        solved = [entry for entry in entries if entry.solution is not None]
        if self._form == 'json':
            self._write(self._json(entries))
            return
        if self._form != 'text' and solved:
            self._picture(solved)
            if self._output:  # what was asked for is in the file
                return
        if as_table:
            lines = ['\t'.join(COLUMNS)] if self._header else []
            lines += [self._line(entry) for entry in entries]
        else:
            lines = [self._described(entry) for entry in solved]
        self._write(lines, to_file=self._form == 'text')

    def _write(self, lines: Sequence[str], to_file: bool = True) -> None:
        if self._output and to_file:
            files.write_text(self._output, ''.join(f'{line}\n' for line in lines))
            print(f'wrote {self._output}', file=sys.stderr)
            return
        for line in lines:
            print(line)

    def _json(self, entries: Sequence[Entry]) -> list[str]:
        values = [
            as_dict(entry.solution) if entry.solution else {'error': entry.error}
            for entry in entries
            if entry.solution or entry.error
        ]
        if self._output and self._output.endswith('.json'):
            return [json.dumps(values, indent=1)]
        return [json.dumps(value) for value in values]

    def _line(self, entry: Entry) -> str:
        solution = entry.solution
        if solution is None:
            return f'\t\t\terror: {entry.error}' if entry.error else entry.text
        confidence = '' if solution.confidence is None else f'{solution.confidence:.4f}'
        status = {True: 'valid', False: 'invalid', None: '?'}[solution.valid]
        if solution.abstained:
            status = 'unsolved'
        elif entry.labels is not None:
            status = 'wrong' if _wrong(entry) else 'right'
        if note := self._several(solution, _NODES_OF_MANY):
            status += f', {note}'
        return f'{solution.text}\t{confidence}\t{solution.steps:g}\t{status}'

    def _several(self, solution: 'Solution', nodes: int) -> str:
        """A remark where the puzzle has not exactly one solution."""
        count = self._solver.task.count_solutions(solution.question, max_nodes=nodes)
        notes: dict[int | None, str] = {
            0: 'the puzzle has no solution',
            2: 'the puzzle has several solutions',
        }
        return notes.get(count, '')

    def _described(self, entry: Entry) -> str:
        from hrm_jax.visualize import boards

        solution, task = entry.solution, self._solver.task
        assert solution is not None  # only solved entries are described
        facts = [] if solution.confidence is None else [f'confidence {solution.confidence:.1%}']
        facts += [f'{solution.steps:g} step{"s" * (solution.steps != 1)}']
        facts += [{True: 'valid', False: 'unsolved', None: 'validity unknown'}[solution.valid]]
        if solution.abstained:
            facts[-1] = 'unsolved: no chain claims a solution'
        elif entry.labels is not None:
            wrong = _wrong(entry)
            facts[-1] = f'wrong in {wrong} cell{"s" * (wrong != 1)}' if wrong else 'right'
        if solution.chains > 1:
            facts.append(f'{solution.chains} chains')
        # An attempt that breaks the rules has no line that could be copied as an answer.
        attempt = solution.valid is False and entry.labels is None and task.is_board
        text = '' if attempt else f'{solution.text}\n'
        text += ', '.join(facts)
        if solution.valid is False and entry.labels is None:
            text += '\nUnsolved: the last attempt, shown above, breaks the rules.'
        if note := self._several(solution, _NODES_OF_ONE):
            text += f'\n{note[0].upper()}{note[1:]}.'
        if not task.is_board:
            return text
        shown = [
            boards.board_lines(tokens, task) for tokens in (solution.question, solution.answer)
        ]
        name = 'attempt' if solution.valid is False else 'answer'
        return f'{boards.side_by_side(("puzzle", name), shown)}\n\n{text}'

    def _picture(self, entries: Sequence[Entry]) -> None:
        from hrm_jax.visualize import animation, figures, page

        path, task = self._output or f'solution.{self._form}', self._solver.task
        if self._form == 'html':
            page.write_trace(path, self._traced(entries), task, 'Puzzles and answers, step by step')
        else:
            if len(entries) > 1:
                print(
                    f'note: a .{self._form} shows one puzzle, here the first of {len(entries)}; an '
                    f'.html shows them all.', file=sys.stderr,
                )  # fmt: skip
            seen = self._traced(entries[:1])
            if self._form == 'gif':
                animation.save_gif(seen, 0, task, path)
            else:
                figures.save(figures.draw_reasoning(seen, 0, task), path)
        print(f'wrote {path}')

    def _traced(self, entries: Sequence[Entry]):
        import numpy as np

        from hrm_jax.types import IGNORE_LABEL_ID
        from hrm_jax.visualize import trace

        steps, parts = self._steps, []
        if not steps and self._solver.config.model.lattice.on:  # it may search for long
            steps = round(max(e.solution.steps for e in entries if e.solution is not None))
        for start in range(0, len(entries), _TRACED_AT_ONCE):
            some = entries[start : start + _TRACED_AT_ONCE]
            unknown = np.full(self._solver.task.seq_len, IGNORE_LABEL_ID)
            parts.append(
                trace.trace(
                    self._solver.config,
                    self._solver.weights,
                    np.stack([e.solution.question for e in some if e.solution is not None]),
                    np.stack([unknown if e.labels is None else e.labels for e in some]),
                    np.array([entry.identifier for entry in some]),
                    steps,
                )
            )
        return trace.joined(parts)


def as_dict(value: Any) -> dict[str, Any]:
    """The fields of a solution or an ARC answer, JSON-able."""
    values = dataclasses.asdict(value)
    return {k: v.tolist() if hasattr(v, 'tolist') else v for k, v in values.items()}


def _wrong(entry: Entry) -> int:
    """Cells of the answer that differ from the known one."""
    assert entry.labels is not None
    assert entry.solution is not None
    scored = entry.labels >= 0
    return int(((entry.solution.answer != entry.labels) & scored).sum())


def show_arc(
    form: str,
    output: str | None,
    name: str,
    task: Mapping[str, Any],
    answers: Sequence['ArcAnswer'],
) -> None:
    """Shows an ARC task: its tests, each with two attempts.

    Args:
      form: of ``solve.FORMS``.
      output: file to write; a ``.json`` has the form of the competition's submissions.
      name: of the task.
      task: parsed JSON.
      answers: one per test.
    """
    if form == 'json' and output and output.endswith('.json'):
        attempts = [
            {'attempt_1': answer.attempts[0] or [[0]], 'attempt_2': answer.attempts[-1] or [[0]]}
            for answer in answers
        ]
        files.write_text(output, json.dumps({name: attempts}))
    elif form == 'json':
        lines = [json.dumps(as_dict(answer)) for answer in answers]
        if not output:
            print('\n'.join(lines))
            return
        files.write_text(output, ''.join(f'{line}\n' for line in lines))
    elif form == 'text':
        text = '\n\n'.join(_arc_text(number, answer) for number, answer in enumerate(answers, 1))
        if not output:
            print(text)
            return
        files.write_text(output, text + '\n')
    else:
        from hrm_jax.visualize import arc_pictures

        output = output or f'solution.{form}'
        arc_pictures.save(output, form, name, task, answers)
    print(f'wrote {output}')


def _arc_text(number: int, answer: 'ArcAnswer') -> str:
    from hrm_jax.visualize import boards

    titles, grids = [f'test {number}'], [answer.question]
    for place, grid in enumerate(answer.attempts, 1):
        titles.append(f'attempt {place}')
        grids.append(grid)
    rows = [[' '.join(map(str, row)) for row in grid] for grid in grids]
    height = max(map(len, rows))
    text = boards.side_by_side(titles, [grid + [''] * (height - len(grid)) for grid in rows])
    facts = [
        f'attempt {place}: {votes} vote{"s" * (votes != 1)}, confidence {confidence:.1%}'
        for place, (votes, confidence) in enumerate(
            zip(answer.votes, answer.confidence, strict=True), 1
        )
    ]
    facts += [f'{answer.steps:g} steps']
    if len(answer.attempts) == 1:
        facts.append('attempt 2 is the same: all views agree')
    if answer.right_attempt is not None:
        right = answer.right_attempt
        facts.append(f'attempt {right} is right' if right else 'no attempt is right')
    return f'{text}\n\n' + '\n'.join(facts)
