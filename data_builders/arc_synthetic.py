"""Synthetic pairs of ARC tasks, in re-arc's form: a JSON list of input/output pairs for each task.

A folder of them (or one with ``tasks/``, as re-arc unpacks) is one more source of training pairs. A
task of a name that another source has gets these pairs beside its own, under its identifiers; any
other is a puzzle of its own. How many are drawn is stated as a share of all training pairs.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import hashlib
import math
import pathlib
from typing import Any

import numpy as np

from data_builders.arc_puzzles import Pair, Puzzle, parse
from hrm_jax import files
from hrm_jax.data.augment import ARC_SIDE
from hrm_jax.errors import BuildError

_LICENCES = ('LICENSE*', 'LICENCE*', 'COPYING*')
_BESIDE = ('metadata.json',)  # re-arc's measurements of its generators
_DRAW = 17  # keeps these draws apart from those of augmentations and places


@dataclasses.dataclass(frozen=True)
class Share:
    """One folder and how much of it is used.

    Attributes:
      path: of the folder.
      share: of all training pairs, between 0 and 1.
    """

    path: pathlib.Path
    share: float


def read_shares(texts: Sequence[str]) -> list[Share]:
    """Reads ``FOLDER=SHARE``.

    Raises:
      BuildError: one is not of this form, or together they leave nothing for the other sources.
    """
    found = []
    for text in texts:
        path, equals, number = text.rpartition('=')
        try:
            share = float(number) if equals else math.nan
        except ValueError:
            share = math.nan
        BuildError.require(
            0 < share < 1,
            f'--synthetic must be FOLDER=SHARE with a share of the training pairs between 0 and 1, '
            f'such as re_arc=0.5; got {text}.',
        )
        found.append(Share(pathlib.Path(files.expanded(path, BuildError)), share))
    total = sum(one.share for one in found)
    BuildError.require(
        total < 1, f'the shares of --synthetic must be below 1 in sum; they are {total:g}.'
    )
    return found


def add(
    subsets: Sequence[list[Puzzle]],
    shares: Sequence[Share],
    held_out: set[str],
    seed: int,
    side: int = ARC_SIDE,
) -> tuple[list[list[Puzzle]], list[dict[str, Any]]]:
    """Adds synthetic pairs to the puzzles of the other sources.

    Args:
      subsets: puzzles of each subset, each name once.
      shares: of the folders.
      held_out: subsets whose tests are for testing; their puzzles get no synthetic pairs, which
        would show their rules.
      seed: of the draw.
      side: rows and columns of the canvas; pairs with a larger grid are not drawn.

    Returns:
      The subsets, those of new tasks last, and an entry of the manifest for each folder.

    Raises:
      BuildError: no tasks, a malformed pair, or a task whose tests are held out.
    """
    found = [list(puzzles) for puzzles in subsets]
    places = {p.name: (s, k) for s, puzzles in enumerate(found) for k, p in enumerate(puzzles)}
    own = sum(_trains(pair, held_out) for puzzles in found for p in puzzles for pair in p.pairs)
    rest = 1 - sum(one.share for one in shares)
    origins = []
    for one in shares:
        listed = _tasks(one.path)
        wanted = max(1, round(own * one.share / rest / len(listed)))
        digest, used, new = hashlib.sha256(), 0, []
        for path in listed:
            pairs = list(_drawn(path, one.path.name, wanted, seed, side))
            if not pairs:  # none fits the canvas
                continue
            used += len(pairs)
            digest.update(f'{path.stem}\n'.encode())
            for pair in pairs:
                digest.update(f'{pair.text()}\n'.encode())
            place = places.get(path.stem)
            if place is None:
                new.append(Puzzle(path.stem, one.path.name, tuple(pairs), str(path)))
                continue
            known = found[place[0]][place[1]]
            BuildError.require(
                not any(pair.is_test and pair.subset in held_out for pair in known.pairs),
                f'{path} must not be of a task whose tests are held out ({known.where}): its '
                f'pairs would show the answers. Remove the file, or build without the task.',
            )
            found[place[0]][place[1]] = dataclasses.replace(known, pairs=(*known.pairs, *pairs))
        places |= {puzzle.name: (len(found), k) for k, puzzle in enumerate(new)}
        found += [new] if new else []
        origins.append({
            'path': str(one.path), 'name': one.path.resolve().name, 'licence': _licence(one.path),
            'share': one.share, 'puzzles': len(listed), 'pairs': used,
            'pairs_of_a_puzzle': wanted, 'content_sha256': digest.hexdigest(),
        })  # fmt: skip
    return found, origins


def _trains(pair: Pair, held_out: set[str]) -> bool:
    return pair.output is not None and not (pair.is_test and pair.subset in held_out)


def _tasks(folder: pathlib.Path) -> list[pathlib.Path]:
    BuildError.require(folder.is_dir(), f'--synthetic {folder} must be a folder.')
    inner = folder / 'tasks' if (folder / 'tasks').is_dir() else folder
    listed = [path for path in sorted(inner.glob('*.json'))
              if files.visible(path) and path.name not in _BESIDE]  # fmt: skip
    BuildError.require(
        bool(listed), f'{folder} must have NAME.json files, a list of pairs each; it has none.'
    )
    return listed


def _fits(pair: Any, side: int) -> bool:
    """Whether no grid of a pair is larger than the canvas; what is malformed fits, to be named."""
    grids = [pair.get('input'), pair.get('output')] if isinstance(pair, dict) else []
    grids = [grid for grid in grids if isinstance(grid, list)]
    rows = [row for grid in grids for row in grid if isinstance(row, list)]
    return max(map(len, [*grids, *rows]), default=0) <= side


def _drawn(path: pathlib.Path, subset: str, wanted: int, seed: int, side: int) -> Iterator[Pair]:
    """Draws some pairs of a task, in the order of its file; all where there are fewer."""
    content = files.read_json(path, BuildError, list)
    name = int.from_bytes(hashlib.blake2b(path.stem.encode(), digest_size=4).digest())
    rng = np.random.default_rng([seed, _DRAW, name])
    # On the largest canvas nothing is left out: a larger grid is an error there.
    there = [k for k, one in enumerate(content) if side == ARC_SIDE or _fits(one, side)]
    chosen = rng.choice(len(there), min(wanted, len(there)), replace=False)
    for number in (there[k] for k in sorted(chosen.tolist())):
        one = {'train': [content[number]], 'test': []}
        yield parse(one, path.stem, subset, f'{path}, entry {number + 1}').pairs[0]


def _licence(folder: pathlib.Path) -> str:
    """First line of the licence beside the pairs, or 'not stated'."""
    for place in (folder, folder.resolve().parent):
        for pattern in _LICENCES:
            for path in sorted(place.glob(pattern)):
                lines = [line.strip() for line in files.read_text(path, BuildError).splitlines()]
                if any(lines):
                    return next(line for line in lines if line)
    return 'not stated'
