"""Names that a data set brings, checked where they are read: sets, puzzles, identifiers, tokens.

A set's name becomes part of file names (predictions, submissions) and of the names of metrics; a
puzzle's name is a key of a submission. So neither is taken as it comes.
"""

from collections.abc import Sequence
import os
import pathlib
import re

from hrm_jax import files
from hrm_jax.errors import DatasetError, UserError

BLANK_NAME = '<blank>'
VOCABULARY, IDENTIFIERS = 'vocab.json', 'identifiers.json'
_LONGEST = 100
# ``<name>_t<dihedral>_<colours>`` (HRM) or ``<name>|||t<dihedral>|||<colours>`` (TRM). Only
# this ending is the augmentation: names may have underscores themselves.
AUGMENTED = re.compile(
    r'(?P<base>.*)(?:_|\|\|\|)t(?P<t>\d)(?:_|\|\|\|)(?P<colours>\d{10})\Z', re.DOTALL
)


def check_file_name(name: object, what: str, kind: type[UserError] = DatasetError) -> str:
    """Returns a name that becomes part of file names.

    Args:
      name: as it was read.
      what: whose name, and where, for the message.
      kind: of the error.

    Raises:
      UserError: of the given kind; the name is not a plain file name, such as ``../../x``.
    """
    plain = (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST
        and name.isprintable()
        and not name.startswith(('.', '-', ' '))
        and not set(name) & set('/\\')
    )
    kind.require(
        plain,
        f'{what} must be a plain name: 1 to {_LONGEST} characters without / and \\, not beginning '
        f'with a dot, a hyphen or a space; got {files.shown(name)}. Rename it.',
    )
    assert isinstance(name, str)  # part of ``plain``
    return name


def check_puzzle_name(name: object, where: str, kind: type[UserError] = DatasetError) -> str:
    """Returns the name of a source puzzle, a key of submissions.

    Args:
      name: as it was read.
      where: file or record, for the message.
      kind: of the error.

    Raises:
      UserError: of the given kind; the name is empty, not printable (a line break would be read as
        two names), or looks like the name of an augmentation or of the blank identifier.
    """
    fits = (
        isinstance(name, str)
        and bool(name)
        and name.isprintable()
        and name == name.strip()
        and '|||' not in name
        and name != BLANK_NAME
        and not AUGMENTED.match(name)
    )
    kind.require(
        fits,
        f'{where}: the name of a puzzle must be printable characters, with no blanks around it, no '
        f'||| in it, no ending _t0_0123456789 and not {BLANK_NAME}; got {files.shown(name)}. '
        f'Rename it.',
    )
    assert isinstance(name, str)  # part of ``fits``
    return name


def check_puzzle_names(names: Sequence[str], identifiers: Sequence[int], where: str) -> None:
    """Checks the names of the groups of a set.

    Args:
      names: one for each group.
      identifiers: of the first puzzle of each group.
      where: the set, for the message.

    Raises:
      DatasetError: another number of names than of groups, an empty name, or two puzzles of one
        name. (The groups of one name that older sets have share their identifiers.)
    """
    rebuild = 'The answers of a submission would belong to other puzzles; build the set again.'
    DatasetError.require(
        len(names) == len(identifiers),
        f'{where} must have one name for each of its {len(identifiers)} groups; it has '
        f'{len(names)}. {rebuild}',
    )
    known: dict[str, int] = {}
    for number, (name, identifier) in enumerate(zip(names, identifiers, strict=True), start=1):
        DatasetError.require(
            bool(name), f'{where}: the name of group {number} must not be empty. {rebuild}'
        )
        DatasetError.require(
            known.setdefault(name, identifier) == identifier,
            f'{where}: the name of group {number}, {files.shown(name)}, must be its own; another '
            f'group has it. {rebuild}',
        )


def read_identifiers(path: str | os.PathLike) -> list[str]:
    """Reads ``identifiers.json``: the name of every puzzle identifier.

    Raises:
      DatasetError: it is not a list of texts, or a name occurs twice.
      OSError: it cannot be read.
    """
    names = files.read_json(path, DatasetError, list)
    seen: set[str] = set()
    for number, name in enumerate(names):
        DatasetError.require(
            isinstance(name, str),
            f'{path}: identifier {number} must be a text; got {files.shown(name)}.',
        )
        DatasetError.require(
            name not in seen,
            f'{path}: the name of identifier {number}, {files.shown(name)}, must be its own; an '
            f'earlier identifier has it.',
        )
        if name:
            seen.add(name)
    return names


def vocabulary_of(folder: str | os.PathLike) -> dict[str, int]:
    """Returns the tokens of a data set's ``vocab.json``, token -> id; none without this file.

    Raises:
      DatasetError: see ``read_vocabulary``.
    """
    path = pathlib.Path(folder).expanduser() / VOCABULARY
    return read_vocabulary(path) if path.is_file() else {}


def read_vocabulary(path: str | os.PathLike) -> dict[str, int]:
    """Reads ``vocab.json``, token -> id.

    Raises:
      DatasetError: it is not an object with whole numbers from 0, each once.
      OSError: the file cannot be read.
    """
    tokens = files.read_json(path, DatasetError, dict)
    owner: dict[int, str] = {}
    for token, number in tokens.items():
        DatasetError.require(
            type(number) is int and number >= 0,
            f'{path}: the id of {files.shown(token)} must be a whole number from 0; got '
            f'{files.shown(number)}.',
        )
        DatasetError.require(
            owner.setdefault(number, token) is token,
            f'{path}: the id of {files.shown(token)} must be its own; {files.shown(owner[number])} '
            f'has {number} too.',
        )
    return tokens
