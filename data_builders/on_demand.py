"""A data set of a user's own file, built when a run first wants it and kept for its restarts.

The manifest of the built set says what it was made of. The set is used again while the hash of
the file and the flags are the same; it is built again when they are not, unless a run depends
on it already.
"""

from collections.abc import Callable
import contextlib
import fcntl
import pathlib
import shlex
from typing import Any

from data_builders import commandline, custom, sources
from data_builders.errors import require
from hrm_jax.data import records
from hrm_jax.data.puzzles import DatasetError

_OWN_FLAGS = ('--source', '--output-dir', '--overwrite')


def ensure(
    source: str,
    flags: str,
    output: pathlib.Path,
    in_use: bool,
    say: Callable[[str], None] = print,
) -> None:
    """Makes sure that ``output`` holds the set of ``source``; builds it where it is missing.

    Several processes may call this at once: one builds, the others wait and use the result.

    Args:
      source: a CSV or JSON-lines file, or a folder with train and test.
      flags: more flags of ``python -m data_builders custom``, as on a command line.
      output: folder of the set.
      in_use: a run has trained on what is there, so nothing else may take its place.
      say: prints a message.

    Raises:
      BuildError: the source cannot be read, the flags are wrong, or the output is in the way.
      DatasetError: the set is damaged, or the source or the flags have changed and ``in_use``
        holds.
    """
    words = shlex.split(flags)
    own = [word for word in words if word.partition('=')[0] in _OWN_FLAGS]
    require(not own, f'data.source_flags must leave {", ".join(own)} to the run; remove it.')
    arguments = ['custom', '--source', source, '--output-dir', str(output), *words]
    wanted = vars(commandline.parser().parse_args(arguments))
    del wanted['command']
    output.parent.mkdir(parents=True, exist_ok=True)
    with _turn(output):
        if not output.exists():
            custom.build(**wanted)
            return
        manifest = records.check_manifest(output)
        # Whoever has deleted the file can still go on: the set holds all of it.
        gone = not pathlib.Path(source).expanduser().exists()
        if gone and manifest['options'].get('source') == source:
            say(f'{source} is not there any more; using the set built from it, {output}')
            return
        changed = _changes(manifest, wanted)
        if not changed:
            return
        if in_use:
            raise DatasetError(
                f'the run of {output.parent} was begun with other data than data.source={source} '
                f'gives now: {"; ".join(changed)}. Put back what was there, or give another '
                f'--workdir for a new run. To go on with the old data: '
                f"--config.data.source='' --config.data.source_flags='' --config.data.path={output}"
            )
        say(f'{", ".join(changed)}: building {output} again')
        custom.build(**wanted | {'overwrite': True})


@contextlib.contextmanager
def _turn(output: pathlib.Path):
    """Holds a lock, or waits for it."""
    with (output.parent / f'.{output.name}.turn').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _changes(manifest: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between a built set and a wanted one, in words."""
    built = {**manifest['options'], 'seed': manifest['seed']}
    changed = [
        f'--{name.replace("_", "-")} was {value}, is {wanted[name]}'
        for name, value in built.items()
        if name != 'source' and name in wanted and wanted[name] != value
    ]
    before = [one['sha256'] for one in manifest['sources']]
    files = custom.source_files(wanted['source']).values()
    now = [sources.fingerprint(file)['sha256'] for file in files]
    if now != before:
        changed.append(f'the content of {wanted["source"]} has changed')
    return changed
