"""CSV files as people have them: byte order marks, blank lines, blanks after commas, gzip."""

from collections.abc import Iterator, Sequence
import contextlib
import csv
import gzip
import pathlib
import zlib

from hrm_jax.errors import BuildError

SUFFIXES = ('.csv', '.csv.gz')
csv.field_size_limit(1 << 24)  # characters of a cell; Python's own limit is 131,072


@contextlib.contextmanager
def open_csv(path: pathlib.Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Opens a CSV file with a header.

    Lines without any character but commas are left out. Where the header has a blank after its
    commas, one blank is taken from the cells behind a comma too.

    Yields:
      The names of the columns in lower case, and the records: number (from 1) and cells.

    Raises:
      BuildError: it cannot be read, or a record has more or fewer cells than the header.
    """
    opener = gzip.open if path.name.endswith('.gz') else open
    try:
        with opener(path, 'rt', newline='', encoding='utf-8-sig') as file:
            reader = csv.reader(file)
            header = next((row for row in reader if any(row)), [])
            spaced = len(header) > 1 and all(name.startswith(' ') for name in header[1:])
            yield [name.strip().lower() for name in header], _records(reader, header, spaced, path)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise BuildError(f'{path} cannot be read as CSV: {error}') from None


def _records(
    reader: Iterator[list[str]], header: list[str], spaced: bool, path: pathlib.Path
) -> Iterator[tuple[int, list[str]]]:
    number = 0
    for row in reader:
        if not any(row) or (len(row) < len(header) and not ''.join(row).strip()):
            continue
        number += 1
        BuildError.require(
            len(row) == len(header),
            f'{path}, record {number}: {len(header)} columns are needed, as in the first line; got '
            f'{len(row)}.',
        )
        if spaced:
            row[1:] = [cell.removeprefix(' ') for cell in row[1:]]
            BuildError.require(
                not any(cell.startswith('"') for cell in row[1:]),
                f'{path}, record {number}: a quoted cell must follow its comma at once. Remove the '
                f'blanks after the commas.',
            )
        yield number, row


def column(
    header: Sequence[str], names: Sequence[str], path: pathlib.Path, what: str = ''
) -> int | None:
    """Returns the place of the first of some names in a header.

    Args:
      header: names of the columns.
      names: accepted names, the preferred one first.
      path: the file, for the message.
      what: the column is needed, and this is what it has; '': None is returned without it.

    Raises:
      BuildError: a needed column is missing, or its name stands twice.
    """
    found = next((name for name in names if name in header), None)
    if found is None and not what:
        return None
    shown = ','.join(header)[:120] or 'nothing'
    BuildError.require(
        found is not None,
        f'{path} must have a column {" or ".join(names)} (the {what}) in its first line, columns '
        f'separated by commas; got {shown}.',
    )
    BuildError.require(
        header.count(found) == 1, f'{path} must have one column {found}; its first line is {shown}.'
    )
    return header.index(found)


def files_of(source: str, suffixes: Sequence[str] = SUFFIXES) -> dict[str, pathlib.Path]:
    """Returns the files of a source: 'train' and 'test' of a folder, or '' for a single file.

    A folder has one file for each split, or a single file. Hidden files do not count.

    Args:
      source: a folder or a file.
      suffixes: endings of the files, with their dots.

    Raises:
      BuildError: it does not exist, has another ending, or the folder has other files.
    """
    path = pathlib.Path(source).expanduser()
    endings = ', '.join(suffixes)
    BuildError.require(path.exists(), f'--source {source} does not exist. Give a folder or a file.')
    if not path.is_dir():
        BuildError.require(
            path.name.endswith(tuple(suffixes)),
            f'--source {source} must have one of the endings {endings}, or be a folder.',
        )
        return {'': path}
    there = sorted(
        p for p in path.iterdir()
        if not p.name.startswith('.') and p.name.endswith(tuple(suffixes)) and p.is_file()
    )  # fmt: skip
    found = {
        split: [p for p in there if p.name in [f'{split}{suffix}' for suffix in suffixes]]
        for split in ('train', 'test')
    }
    if all(len(files) == 1 for files in found.values()):
        return {split: files[0] for split, files in found.items()}
    if len(there) == 1 and not found['test']:
        return {'': there[0]}
    listed = ', '.join(p.name for p in there[:8]) or 'none'
    raise BuildError(
        f'{path} must have one file train and one file test with one of the endings {endings}, or '
        f'a single file that is split here; it has {listed}.'
    )
