"""Fixtures, checks, and reports of deviations."""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import json
from pathlib import Path
import re
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One fixture: files ``NAME.json``, ``NAME.npz``, ``NAME.<more>``, or a folder ``NAME``.

    Attributes:
      name: path below the folder that was asked for.
      folder: location of the files (or of the folder).
      files: file names of this fixture, relative to ``folder``.
    """

    name: str
    folder: Path
    files: tuple[str, ...]

    @property
    def stem(self) -> str:
        return self.name.rsplit('/', 1)[-1]

    @property
    def path(self) -> Path:
        """The folder of a fixture that is one."""
        return self.folder / self.stem

    @functools.cached_property
    def info(self) -> dict[str, Any]:
        """The JSON beside the arrays; empty where there is none."""
        path = self.folder / f'{self.stem}.json'
        return json.loads(path.read_text()) if path.is_file() else {}

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of ``NAME.npz``; empty where there is none."""
        return read_npz(self.folder / f'{self.stem}.npz')

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with ``prefix``, without it."""
        cut = len(prefix)
        return {k[cut:]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    def weights(self) -> dict[str, np.ndarray]:
        """The weights that the fixture was made with.

        They are stored in ``NAME.weights.npz``, or in a ``*.weights.npz`` that the JSON names;
        arrays ``weights/*`` of the fixture replace single ones.
        """
        own = f'{self.stem}.weights.npz'
        named = re.findall(r'[\w.]+\.weights\.npz', json.dumps(self.info.get('weights', '')))
        for name in [own, *named]:
            if (self.folder / name).is_file():
                return read_npz(self.folder / name) | self.group('weights/')
        raise FileNotFoundError(f'no weights: neither {own} nor a file that {self.stem}.json names')


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; empty where the file is missing."""
    if not path.is_file():
        return {}
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison."""

    fixture: str
    what: str
    deviation: float
    tolerance: float
    passed: bool
    note: str = ''


class Report:
    """Collects the comparisons of one fixture."""

    def __init__(self, fixture: str):
        self.fixture = fixture
        self.rows: list[Row] = []

    def below(self, what: str, deviation: float, tolerance: float, note: str = '') -> None:
        """Records a deviation that must not exceed the tolerance (NaN fails)."""
        deviation = float(deviation)
        passed = bool(deviation <= tolerance)
        self.rows.append(Row(self.fixture, what, deviation, tolerance, passed, note))

    def close(self, what: str, got: Any, want: Any, tolerance: float) -> None:
        """Compares the largest absolute difference."""
        if not self._same_shape(what, got, want, tolerance):
            return
        self.below(what, _largest(np.abs(_f64(got) - _f64(want))), tolerance)

    def close_to_largest(self, what: str, got: Any, want: Any, tolerance: float) -> None:
        """Compares the largest difference, as a share of the largest wanted magnitude."""
        if not self._same_shape(what, got, want, tolerance):
            return
        scale = _largest(np.abs(_f64(want))) or 1.0
        self.below(what, _largest(np.abs(_f64(got) - _f64(want))) / scale, tolerance)

    def close_relative(self, what: str, got: Any, want: Any, tolerance: float) -> None:
        """Compares element by element, relative to the wanted value (0 must be met exactly)."""
        if not self._same_shape(what, got, want, tolerance):
            return
        got, want = _f64(got), _f64(want)
        difference = np.abs(got - want)
        safe = np.where(want == 0, 1.0, np.abs(want))
        self.below(what, _largest(np.where(difference == 0, 0.0, difference / safe)), tolerance)

    def equal(self, what: str, got: Any, want: Any) -> None:
        """Counts the elements that differ; none may."""
        if not self._same_shape(what, got, want, 0):
            return
        self.below(what, np.count_nonzero(np.asarray(got) != np.asarray(want)), 0)

    def _same_shape(self, what: str, got: Any, want: Any, tolerance: float) -> bool:
        if np.shape(got) == np.shape(want):
            return True
        note = f'shape {np.shape(got)} instead of {np.shape(want)}'
        self.rows.append(Row(self.fixture, what, float('inf'), tolerance, False, note))
        return False


def _f64(values: Any) -> np.ndarray:
    return np.asarray(values).astype(np.float64)


def _largest(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0


@dataclasses.dataclass(frozen=True)
class Check:
    """A check and the fixtures that it is for.

    Attributes:
      prefix: the fixture's name must be it, or begin with it and an underscore or digit; empty:
        any name will do.
      arrays: names that must be among the fixture's arrays; ``*`` at the end matches a prefix.
      fields: what the fixture's JSON must hold; a dot leads into a nested object.
      files: files that must be in the fixture's folder, for fixtures that are folders.
      run: does the comparisons.
      accepts: asked last, of a fixture that all else fits.
    """

    prefix: str
    arrays: tuple[str, ...]
    fields: tuple[str, ...]
    files: tuple[str, ...]
    run: Callable[[Fixture, Report], None]
    accepts: Callable[[Fixture], bool] = lambda fixture: True

    def fits(self, fixture: Fixture) -> bool:
        if self.prefix and not re.fullmatch(rf'{re.escape(self.prefix)}([_\d].*)?', fixture.stem):
            return False
        if not all(_holds(fixture.info, field) for field in self.fields):
            return False
        if self.files and not all((fixture.path / name).exists() for name in self.files):
            return False
        return all(_has(fixture.arrays, name) for name in self.arrays) and self.accepts(fixture)


def _holds(info: Any, field: str) -> bool:
    for part in field.split('.'):
        if not isinstance(info, Mapping) or part not in info:
            return False
        info = info[part]
    return True


def _has(arrays: Mapping[str, np.ndarray], name: str) -> bool:
    if name.endswith('*'):
        return any(key.startswith(name[:-1]) for key in arrays)
    return name in arrays


_CHECKS: list[Check] = []


def check(
    prefix: str = '',
    arrays: Iterable[str] = (),
    files: Iterable[str] = (),
    fields: Iterable[str] = (),
    accepts: Callable[[Fixture], bool] = lambda fixture: True,
) -> Callable:
    """Registers a function ``(fixture, report) -> None`` for fixtures of a kind."""

    def register(run: Callable[[Fixture, Report], None]) -> Callable[[Fixture, Report], None]:
        _CHECKS.append(Check(prefix, tuple(arrays), tuple(fields), tuple(files), run, accepts))
        return run

    return register


def fitting(fixture: Fixture) -> list[Check]:
    """The checks that are for a fixture of this name and content."""
    return [c for c in _CHECKS if c.fits(fixture)]


def find(fixture: Fixture) -> Check | None:
    """The check for a fixture: of those that fit, the one with the longest prefix.

    Of checks without a prefix all that fit run, one after the other: a fixture may hold several
    things.
    """
    found = fitting(fixture)
    if len(found) > 1 and not any(c.prefix for c in found):

        def run(fixture: Fixture, report: Report) -> None:
            for one in found:
                one.run(fixture, report)

        return Check('', (), (), (), run)
    return max(found, key=lambda c: (len(c.prefix), len(c.arrays)), default=None)
