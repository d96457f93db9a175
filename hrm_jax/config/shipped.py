"""Experiment files: where the shipped ones are, and what ``--config=`` takes.

They are stored once, in the folder configs/ of the repository, which setup.py installs as the
package hrm_jax._configs. A file derives from another one by ``from configs import BASE`` at its
top; ``importable`` makes this work wherever hrm_jax is installed.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import importlib.machinery
import os
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

from absl import flags

import hrm_jax
from hrm_jax import files
from hrm_jax.errors import ConfigError

_PACKAGE = 'configs'


def folder() -> Path:
    """Folder of the shipped experiments: hrm_jax/_configs if installed, configs/ in a checkout."""
    package = Path(hrm_jax.__file__).resolve().parent
    installed = package / '_configs'
    # Beside an installed hrm_jax, configs/ would be somebody else's package.
    return installed if installed.is_dir() else package.parent / _PACKAGE


def names() -> list[str]:
    """Names of the shipped experiments, sorted."""
    return sorted(path.stem for path in folder().glob('[a-z]*.py'))


def find(name: str) -> Path:
    """Returns the file of an experiment.

    Args:
      name: a file or, where there is no such file, the name of a shipped experiment, with or
        without ``.py``.

    Raises:
      ConfigError: it is neither; the message lists the shipped names.
    """
    name = files.expanded(name)
    if os.path.isfile(name):
        return Path(name)
    if name.removesuffix('.py') in names():
        return folder() / f'{name.removesuffix(".py")}.py'
    stem = Path(name).stem
    hint = f' Did you mean --config={stem}?' if stem in names() else ''
    raise ConfigError(
        f'there is no configuration file {name!r}, and no shipped experiment has this name.{hint} '
        f'Shipped: {", ".join(names())}'
    )


def is_recorded(name: str) -> bool:
    """Whether a value of ``--config`` is a JSON file, as a run leaves, or a checkpoint."""
    return os.path.isdir(name) or (os.path.isfile(name) and not name.endswith('.py'))


class FileOrName(flags.ArgumentParser):
    """Parser of a flag whose value is a configuration file or the name of a shipped one.

    Args:
      load: the parser that loads a file, for values ``FILE`` or ``FILE:ARGUMENT``.
      recorded: returns, as a ConfigDict, what a run's config.json or a checkpoint states.
    """

    def __init__(self, load: flags.ArgumentParser, recorded: Callable[[str], Any]):
        self._load, self._recorded = load, recorded

    def parse(self, argument: str):
        argument = files.expanded(argument)
        if is_recorded(argument):
            return self._recorded(argument)
        name, colon, rest = argument.partition(':')
        file = find(name)
        with importable(file):
            return self._load.parse(f'{file}{colon}{rest}')

    def flag_type(self) -> str:
        return self._load.flag_type()


@contextlib.contextmanager
def importable(file: Path) -> Iterator[None]:
    """Within it, ``from configs import BASE`` finds the shipped experiments.

    While a shipped file is loaded, ``configs`` is the shipped folder, whatever else has this
    name. For any other file it is what Python finds (a user's own package, for example), and
    then the file's own folder if that is called configs, and the shipped one. Afterwards
    ``sys.modules`` is as if none of the shipped files had been imported.

    Args:
      file: the file that is going to be loaded.
    """
    shipped, own = folder(), file.resolve().parent
    is_shipped = own == shipped
    finder = _Finder([own, shipped] if own.name == _PACKAGE and not is_shipped else [shipped])
    before = {name: module for name, module in sys.modules.items() if _is_config(name)}
    if is_shipped:
        for name in before:
            del sys.modules[name]
    sys.meta_path.insert(0 if is_shipped else len(sys.meta_path), finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Python finds what is inside a `configs` of ours by itself.
        ours = [n for n in sys.modules if n in finder.found or (finder.whole and _is_config(n))]
        for name in ours:
            del sys.modules[name]
        sys.modules.update(before)


def _is_config(name: str) -> bool:
    return name == _PACKAGE or name.startswith(f'{_PACKAGE}.')


class _Finder:
    """Finds ``configs`` and its modules in given folders (an ``importlib.abc.MetaPathFinder``).

    Attributes:
      found: names of what it found.
      whole: whether ``configs`` itself is among them.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = [str(path) for path in folders]
        self.found: set[str] = set()

    @property
    def whole(self) -> bool:
        return _PACKAGE in self.found

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not _is_config(name):
            return None
        if name == _PACKAGE:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = self._folders
        else:
            spec = importlib.machinery.PathFinder.find_spec(name, self._folders)
        if spec is not None:
            self.found.add(name)
        return spec
