"""Records of a custom task, from CSV and JSON lines, and what their texts have in common."""

from collections.abc import Iterator, Sequence
import dataclasses
import gzip
import json
import pathlib
from typing import Any
import zlib

from data_builders import tables, writing
from hrm_jax import files
from hrm_jax.data import names
from hrm_jax.data.text import PAD, Form, Grid
from hrm_jax.errors import BuildError, PuzzleError

SUFFIXES = (*tables.SUFFIXES, '.jsonl', '.jsonl.gz')
_LONGEST_LINE = 1 << 26  # characters of a JSON line


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as cells.

    Attributes:
      question, answer: grids of tokens.
      puzzle: name of the rule or theme that it belongs to; '': none.
      where: file and number, for messages.
    """

    question: Grid
    answer: Grid
    puzzle: str
    where: str

    def sides(self) -> tuple[tuple[str, Grid], tuple[str, Grid]]:
        return ('question', self.question), ('answer', self.answer)


def read(path: pathlib.Path, form: Form) -> list[Record]:
    """Reads a CSV or JSON-lines file.

    Args:
      path: its ending states which.
      form: how puzzles are written.

    Raises:
      BuildError: an unknown ending, missing fields, ragged grids; names file and record.
    """
    BuildError.require(
        path.name.endswith(SUFFIXES),
        f'{path} must have one of the endings {", ".join(SUFFIXES)}.',
    )
    parse = _csv_objects if '.csv' in path.suffixes else _json_objects
    records, cells = [], 0
    for number, values in parse(path):
        where = f'{path}, record {number}'
        for field in ('question', 'answer'):
            BuildError.require(
                values.get(field) not in (None, '', []),
                f'{where} must have {"an answer" if field == "answer" else "a question"}.',
            )
        grids = [_grid(values[f], form, f'{where}, {f}') for f in ('question', 'answer')]
        cells += sum(len(grid) * len(grid[0]) for grid in grids)
        writing.require_memory(8 * cells, f'{path} with {number:,} records of {cells:,} cells')
        records.append(Record(*grids, _puzzle(values.get('puzzle'), where), where))
    BuildError.require(bool(records), f'{path} has no records.')
    return records


def _csv_objects(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with tables.open_csv(path) as (header, records):
        places = {
            'question': tables.column(header, ('question',), path, 'question'),
            'answer': tables.column(header, ('answer',), path, 'answer'),
            'puzzle': tables.column(header, ('puzzle',), path),
        }
        for number, row in records:
            yield number, {n: row[place] for n, place in places.items() if place is not None}


def _json_objects(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = gzip.open if path.name.endswith('.gz') else open
    try:
        with opener(path, 'rt', encoding='utf-8-sig') as file:
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                if not line.strip():
                    continue
                number += 1
                where = f'{path}, record {number}'
                BuildError.require(
                    len(line) <= _LONGEST_LINE,
                    f'{where} must have at most {_LONGEST_LINE:,} characters.',
                )
                yield number, files.parse_json(line, where, BuildError, dict)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise BuildError(f'{path} cannot be read: {error}') from None


def _puzzle(value: Any, where: str) -> str:
    """Returns the name of a record's puzzle; '' without one."""
    if value is None or value == '':
        return ''
    BuildError.require(
        isinstance(value, str | int) and not isinstance(value, bool) and value != names.BLANK_NAME,
        f'{where}, puzzle must be a text or a whole number, and not {names.BLANK_NAME}; got '
        f'{files.shown(value)}.',
    )
    return str(value)


def _grid(value: Any, form: Form, where: str) -> Grid:
    try:
        if isinstance(value, str):
            return form.parse(value)
        BuildError.require(
            isinstance(value, list) and len({isinstance(row, list) for row in value}) == 1,
            f'{where} must be a text, a list, or a list of rows; got {files.shown(value)}.',
        )
        rows = value if isinstance(value[0], list) else [value]
        return form.of_rows([[_cell(cell, where) for cell in row] for row in rows])
    except PuzzleError as error:
        raise BuildError(f'{where}: {error}') from None


def _cell(value: Any, where: str) -> str:
    """Returns a cell of a JSON list as its token."""
    BuildError.require(
        isinstance(value, str | int | float) and value != '',
        f'{where}: a cell must be a text or a number; got {files.shown(value)}.',
    )
    return value if isinstance(value, str) else json.dumps(value)


def vocabulary(records: Sequence[Record]) -> dict[str, int]:
    """Returns token -> id from 1, in the order of the tokens.

    Raises:
      BuildError: there are too many tokens, or one has the name of the padding.
    """
    found: dict[str, str] = {}  # token -> the first record that has it
    for record in records:
        for _, grid in record.sides():
            for row in grid:
                for token in row:
                    found.setdefault(token, record.where)
    BuildError.require(
        len(found) < 65536, f'there are {len(found)} different tokens; at most 65535 fit.'
    )
    BuildError.require(
        PAD not in found,
        f'{found.get(PAD)} has the token {PAD}, which stands for padding. Write it differently.',
    )
    return {token: k for k, token in enumerate(sorted(found), start=1)}


def written_form(records: Sequence[Record], form: Form) -> Form:
    """Returns the form in which all records can be written: words where a token is longer than one
    character, as those of JSON lists may be.

    Raises:
      BuildError: a record would be read back as another one.
    """
    long = any(
        len(token) != 1 for r in records for _, grid in r.sides() for row in grid for token in row
    )
    if long and not form.words:
        try:
            form = dataclasses.replace(form, words=True)
        except PuzzleError as error:
            raise BuildError(f'cells of several characters are words: {error}') from None
    for record in records:
        for what, grid in record.sides():
            try:
                same = form.parse(form.write(grid)) == grid
            except PuzzleError:
                same = False
            BuildError.require(
                same,
                f'{record.where}, {what}: a cell must not have characters that separate cells or '
                f'rows (blanks in words, line breaks, {form.rows or "none else"}). Write such '
                f'cells differently.',
            )
    return form


def check_shapes(records: Sequence[Record]) -> None:
    """Refuses puzzles in several notations, which would be padded to one useless canvas.

    Grids of several sizes are fine, and so are texts of several lengths. A text that is longer than
    the rows of the grids beside it is a grid in one line.

    Raises:
      BuildError: names a record of each kind.
    """
    for k, what in enumerate(('question', 'answer')):
        grids = [(record.sides()[k][1], record.where) for record in records]
        rows = [(len(g), len(g[0]), where) for g, where in grids if len(g) > 1]
        lines = [(len(g[0]), where) for g, where in grids if len(g) == 1]
        if not rows or not lines:
            continue
        high, wide, where = max(rows, key=lambda one: one[1])
        length, other = max(lines)
        BuildError.require(
            length <= wide,
            f'{other}: the {what} must have rows, as others have; it is one row of {length} cells, '
            f'and that of {where} has {high} rows of {wide}. {_FIX}',
        )
    different = [
        record for record in records
        if (len(record.question) > 1) != (len(record.answer) > 1)
        and len(record.question) * len(record.question[0])
        == len(record.answer) * len(record.answer[0])
    ]  # fmt: skip
    BuildError.require(
        len(different) < len(records),
        f'{records[0].where}: question and answer must be written alike; one is a single row with '
        f'all cells of the other, which has rows. {_FIX}',
    )


_FIX = (
    'Write all puzzles in one notation: rows are separated by line breaks (in CSV within quotes), '
    'or by what --rows names.'
)
