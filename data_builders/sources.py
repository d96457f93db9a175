"""Readers of puzzle sources: CSV files, folders of the original, the Hugging Face hub."""

from collections.abc import Callable
import dataclasses
import hashlib
import math
import pathlib
import re
from typing import Any

import numpy as np

from data_builders import tables, writing
from hrm_jax.data import npy_folder, records
from hrm_jax.data.puzzles import PuzzleDataset, stored_examples
from hrm_jax.errors import BuildError, DatasetError

# What a column has -> its accepted names, the preferred one first; the others are Kaggle's.
COLUMNS = {
    'question': ('question', 'quizzes', 'quiz', 'puzzle'),
    'answer': ('answer', 'solutions', 'solution'),
    'rating': ('rating', 'difficulty'),
}
# Help text of the setting ``source`` of the builders that take all of these.
SOURCE_HELP = (
    'CSV file (.csv or .csv.gz), or folder with train.csv and test.csv, with the columns '
    f'{", ".join(" or ".join(names) for names in list(COLUMNS.values())[:2])} and, where '
    f'ratings are asked for, {" or ".join(COLUMNS["rating"])}; '
    "folder of the original's .npy files or of a built set; data set on the Hugging Face hub; or "
    "'generated'"
)
_ONE_LINE = re.compile(r'[^/\r\n]*\Z')


@dataclasses.dataclass(frozen=True)
class Table:
    """Questions and answers of one split as bytes.

    Attributes:
      questions: uint8 [N, S], the characters of each question.
      answers: uint8 [N, S].
      ratings: float64 [N]; NaN where the source has none.
      numbers: int64 [N], the number of each row's record in the file, from 1.
      path: the file, for messages.
    """

    questions: np.ndarray
    answers: np.ndarray
    ratings: np.ndarray
    numbers: np.ndarray
    path: str

    @classmethod
    def unrated(cls, questions: np.ndarray, answers: np.ndarray, path: str) -> 'Table':
        """Returns a table without ratings, numbered by position."""
        nothing = np.full(len(questions), np.nan)
        return cls(questions, answers, nothing, np.arange(1, len(questions) + 1), path)

    def take(self, chosen: np.ndarray) -> 'Table':
        """Returns the chosen rows (numbers, or a mask)."""
        fields = (self.questions, self.answers, self.ratings, self.numbers)
        return Table(*(field[chosen] for field in fields), self.path)

    def refuse(self, bad: np.ndarray, what: str) -> None:
        """Raises BuildError for the first row where ``bad`` (bool [N]) is true."""
        if bad.any():
            number = self.numbers[np.flatnonzero(bad)[0]]
            raise BuildError(f'{self.path}, record {number}: {what} ({bad.sum()} in all).')


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """Returns path, bytes and sha256 of a source file, for the manifest."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {'path': str(path), 'bytes': path.stat().st_size, 'sha256': digest.hexdigest()}


def csv_files(source: str) -> dict[str, pathlib.Path]:
    """Returns the CSV files of a source: 'train' and 'test', or '' for a single file.

    Args:
      source: a folder, a file, or the name of a data set on the hub.

    Raises:
      BuildError: there are none.
    """
    if pathlib.Path(source).expanduser().exists():
        return tables.files_of(source)
    return {split: _download(source, f'{split}.csv') for split in ('train', 'test')}


def _download(repo: str, name: str) -> pathlib.Path:
    local = 'Or give a CSV file, or a folder with train.csv and test.csv: --source PATH.'
    BuildError.require(
        repo.count('/') == 1 and not repo.startswith(('.', '/', '~')),
        f'--source {repo} is neither a file or folder here nor the name of a data set on the hub '
        f'(OWNER/NAME). Check the spelling.',
    )
    try:
        import huggingface_hub
    except ImportError:
        raise BuildError(
            f'--source {repo} needs the package huggingface_hub: pip install huggingface_hub. '
            f'{local}'
        ) from None
    try:
        # The hub's own client retries for half a minute when there is no network at all.
        cached = huggingface_hub.try_to_load_from_cache(repo, name, repo_type='dataset')
        if not isinstance(cached, str):
            huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
        return pathlib.Path(huggingface_hub.hf_hub_download(repo, name, repo_type='dataset'))
    except Exception as error:  # its errors come from several HTTP packages
        raise BuildError(
            f'the Hugging Face data set {repo} cannot be reached ({type(error).__name__}). '
            f'Download {name} from https://huggingface.co/datasets/{repo} on another machine. '
            f'{local}'
        ) from None


def read_csv(
    path: pathlib.Path,
    length: int | None = None,
    chunk_rows: int = 50_000,
    ratings: bool = False,
    flat: Callable[[str], str] = str,
) -> Table:
    """Reads questions and answers of one length.

    Args:
      path: a .csv or .csv.gz file with a header row; ``COLUMNS`` has the names of the columns.
      length: cells of every question and answer; None: as the first record's answer.
      chunk_rows: rows that are held as Python strings at a time.
      ratings: the column of the ratings is needed; else they are read where they are numbers.
      flat: turns other notations into one character per cell; not called for texts of ``length``
        characters in one line.

    Raises:
      BuildError: wrong columns, a record of another length, or a rating that is not a number;
        names the file and the record.
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    rated: list[float] = []
    chunk: list[tuple[str, str]] = []

    def flush(count: int) -> None:
        # A compressed file of a few bytes may hold more than the memory.
        writing.require_memory(2 * count * length, f'{path} with {count:,} records and more')
        texts = (''.join(column).encode('ascii') for column in zip(*chunk, strict=True))
        parts.append(tuple(np.frombuffer(text, np.uint8).reshape(-1, length) for text in texts))
        chunk.clear()

    with tables.open_csv(path) as (header, records):
        places = [
            tables.column(header, COLUMNS[name], path, name if name != 'rating' or ratings else '')
            for name in COLUMNS
        ]
        q, a, r = places
        for number, row in records:
            pair = []
            for what, text in (('answer', row[a]), ('question', row[q])):
                if len(text) != length or not _ONE_LINE.match(text):
                    text = flat(text)
                length = length or max(1, len(text))
                BuildError.require(
                    len(text) == length and text.isascii(),
                    f'{path}, record {number}: the {what} must have {length} cells, one character '
                    f'each; got {len(text)}.{_lost_zeros(text, length)}',
                )
                pair.append(text)
            chunk.append((pair[1], pair[0]))
            if ratings:
                rated.append(_rating(row[r], f'{path}, record {number}'))
            elif r is not None:
                rated.append(_number(row[r]))
            if len(chunk) == chunk_rows:
                flush(number)
    BuildError.require(
        bool(parts or chunk), f'{path} has a header but no records. Give another --source.'
    )
    if chunk:
        flush(number)
    questions, answers = (np.concatenate(column) for column in zip(*parts, strict=True))
    count = len(questions)
    every = np.array(rated) if rated else np.full(count, np.nan)
    return Table(questions, answers, every, np.arange(1, count + 1), str(path))


def _number(text: str) -> float:
    """A number, or NaN for another text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rating(text: str, where: str) -> float:
    value = _number(text)
    BuildError.require(
        math.isfinite(value),
        f'{where}: --min-difficulty needs a rating, a number; got {text[:40]!r}.',
    )
    return value


def _lost_zeros(text: str, length: int) -> str:
    if not text.isdecimal() or len(text) >= length:
        return ''
    return (
        ' Spreadsheets drop the zeros at the left of a number: store the column as text, or write '
        'empty cells as dots.'
    )


def is_array_folder(source: str) -> bool:
    """Returns whether a source is a folder of the original, or a set built by this package."""
    root = pathlib.Path(source).expanduser()
    return root.is_dir() and (
        npy_folder.looks_like_one(root) or (root / records.MANIFEST).is_file()
    )


def read_folder(source: str, split: str) -> tuple[PuzzleDataset, np.ndarray, np.ndarray]:
    """Reads the first example of every group of a built folder: the un-augmented boards.

    Returns:
      The data set, and uint8 tokens [G, S] of questions and answers.
    """
    try:
        dataset = records.load(source, split)
    except DatasetError as error:
        raise BuildError(str(error)) from None
    parts = []
    for puzzles in dataset.sets.values():
        first = puzzles.puzzle_indices[puzzles.group_indices[:-1]]
        parts.append(stored_examples(puzzles, dataset.metadata, first))
    return dataset, *(np.concatenate(column) for column in zip(*parts, strict=True))


def subsample(table: Table, size: int | None, rng: np.random.Generator) -> Table:
    """Draws ``size`` records without replacement; all of them, in order, when there are fewer."""
    if size is None or size >= len(table.questions):
        return table
    BuildError.require(size > 0, f'a subsample must have at least 1 record; got {size}.')
    return table.take(rng.choice(len(table.questions), size, replace=False))
