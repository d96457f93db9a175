"""Readers of puzzle sources: CSV files, folders of the original, the Hugging Face hub."""

from collections.abc import Iterator
import csv
import dataclasses
import gzip
import hashlib
import pathlib
from typing import Any

import numpy as np

from hrm_jax.data import npy_folder, records
from hrm_jax.data.puzzles import PuzzleDataset, stored_examples
from hrm_jax.errors import BuildError, DatasetError

COLUMNS = ('source', 'question', 'answer', 'rating')
# Help text of the setting ``source`` of the builders that take all of these.
SOURCE_HELP = (
    "folder with train.csv and test.csv (or .csv.gz), folder of the original's .npy files or of "
    "a built set, data set on the Hugging Face hub, or 'generated'"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Questions and answers of one split as bytes.

    Attributes:
      questions: uint8 [N, S], the characters of each question.
      answers: uint8 [N, S].
      ratings: int64 [N]; zeros where the source has none.
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
        zeros = np.zeros(len(questions), np.int64)
        return cls(questions, answers, zeros, np.arange(1, len(questions) + 1), path)

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


def find_csv(source: str, split: str) -> pathlib.Path:
    """Returns ``train.csv`` or ``test.csv`` (or .csv.gz) of a folder or a hub data set.

    Raises:
      BuildError: there is neither.
    """
    folder = pathlib.Path(source).expanduser()
    if folder.is_dir():
        for name in (f'{split}.csv', f'{split}.csv.gz'):
            if (folder / name).is_file():
                return folder / name
        there = ', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'nothing'
        raise BuildError(
            f'{folder} must have {split}.csv or {split}.csv.gz; it has {there}. Give another '
            f'--source.'
        )
    BuildError.require(
        not folder.exists(), f'--source {source} is a file; give the folder with train and test.'
    )
    return _download(source, f'{split}.csv')


def _download(repo: str, name: str) -> pathlib.Path:
    local = 'Or give a folder with train.csv and test.csv: --source DIR.'
    BuildError.require(
        repo.count('/') == 1 and not repo.startswith(('.', '/', '~')),
        f'--source {repo} is neither a folder here nor the name of a data set on the hub '
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


def read_csv(path: pathlib.Path, length: int | None = None, chunk_rows: int = 50_000) -> Table:
    """Reads ``source,question,answer,rating``; only question and answer are required.

    Args:
      path: a .csv or .csv.gz file with a header row.
      length: characters of every question and answer; None: as the first record's.
      chunk_rows: rows that are held as Python strings at a time.

    Raises:
      BuildError: wrong columns, a record of another length, or a rating that is not a number;
        names the file and the record.
    """
    questions, answers, ratings = [], [], []
    for start, rows in _csv_chunks(path, chunk_rows):
        if length is None:
            length = len(rows[0][0])
        for offset, (question, answer, _) in enumerate(rows):
            for what, text in (('question', question), ('answer', answer)):
                BuildError.require(
                    len(text) == length and text.isascii(),
                    f'{path}, record {start + offset}: the {what} must have {length} '
                    f'characters; got {len(text)}.',
                )
        for k, into in enumerate((questions, answers)):
            text = ''.join(row[k] for row in rows).encode('ascii')
            into.append(np.frombuffer(text, np.uint8).reshape(-1, length))
        try:
            ratings.append(np.array([int(row[2] or 0) for row in rows], np.int64))
        except ValueError as error:
            raise BuildError(
                f'{path}, records {start}..{start + len(rows) - 1}: a rating must be a whole '
                f'number; {error}.'
            ) from None
    BuildError.require(
        bool(questions), f'{path} has a header but no records. Give another --source.'
    )
    count = sum(map(len, ratings))
    parts = (np.concatenate(column) for column in (questions, answers, ratings))
    return Table(*parts, np.arange(1, count + 1), str(path))


def _csv_chunks(
    path: pathlib.Path, chunk_rows: int
) -> Iterator[tuple[int, list[tuple[str, str, str]]]]:
    """Yields the number of the first record (from 1) and up to ``chunk_rows`` records."""
    opener = gzip.open if path.name.endswith('.gz') else open
    try:
        with opener(path, 'rt', newline='', encoding='utf-8-sig') as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in ('question', 'answer') if name not in header]
            BuildError.require(
                not missing,
                f'{path} must have the columns {",".join(COLUMNS)} in its first line; got '
                f'{",".join(header)[:120] or "nothing"}.',
            )
            q, a = header.index('question'), header.index('answer')
            r = header.index('rating') if 'rating' in header else None
            rows, start = [], 1
            for number, row in enumerate(reader, start=1):
                BuildError.require(
                    len(row) == len(header),
                    f'{path}, record {number}: {len(header)} columns are needed; got {len(row)}.',
                )
                rows.append((row[q], row[a], row[r] if r is not None else ''))
                if len(rows) == chunk_rows:
                    yield start, rows
                    rows, start = [], number + 1
            if rows:
                yield start, rows
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BuildError(f'{path} cannot be read as CSV: {error}') from None


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
