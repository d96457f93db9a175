"""Data sets of a user's own file, built when a run first needs them and kept for its restarts.

The manifest of the built set records its sources and options. The set is used again while the
hash of the file and the flags are the same; otherwise it is built again, unless a run depends
on it already.
"""

from collections.abc import Callable
import pathlib
import shlex
from typing import Any

from data_builders import commandline, custom, custom_records, sources, tables
from hrm_jax import locks
from hrm_jax.data import records
from hrm_jax.errors import BuildError, DatasetError

_OWN_FLAGS = ('--source', '--output-dir', '--overwrite')


def ensure(
    source: str,
    flags: str,
    output: pathlib.Path,
    in_use: bool,
    log: Callable[[str], None] = print,
) -> None:
    """Builds the set of ``source`` in ``output``, unless it is there already.

    Several processes may call this at once: one builds, the others wait and use the set.

    Args:
      source: a CSV or JSON-lines file, or a folder with train and test.
      flags: more flags of ``python -m data_builders custom``, as on a command line.
      output: folder of the set.
      in_use: a run has trained on the set that is there, so it must not be replaced.
      log: prints a message.

    Raises:
      BuildError: the source cannot be read, a flag is set by the run, or ``output`` is not a
        data set.
      DatasetError: the set is damaged, or the source or the flags have changed and ``in_use``
        is true.
    """
    words = shlex.split(flags)
    own = [word for word in words if word.partition('=')[0] in _OWN_FLAGS]
    BuildError.require(
        not own, f'data.source_flags must not have {", ".join(own)}, which the run sets; remove it.'
    )
    arguments = ['custom', '--source', source, '--output-dir', str(output), *words]
    wanted = commandline.parse(arguments)
    del wanted['command']
    output.parent.mkdir(parents=True, exist_ok=True)
    turn = output.parent / f'.{output.name}.turn'
    with locks.exclusive(turn, 'file', wait=True, log=log):
        if not output.exists():
            custom.build(**wanted)
            return
        manifest = records.check_manifest(output)
        # A run whose file was deleted can still resume: the set has all of it.
        gone = not pathlib.Path(source).expanduser().exists()
        before = pathlib.Path(manifest['options'].get('source') or '')
        if gone and before.name == pathlib.Path(source).name:
            log(f'{source} does not exist any more; using the set built from it, {output}')
            return
        changed = _changes(manifest, wanted)
        if not changed:
            return
        if in_use:
            raise DatasetError(
                f'the run of {output.parent} was started with other data than '
                f'data.source={source} has now: {"; ".join(changed)}. Restore the file and the '
                f'flags, or give another --workdir for a new run. To continue with the old data: '
                f"--config.data.source='' --config.data.source_flags='' --config.data.path={output}"
            )
        log(f'{", ".join(changed)}: building {output} again')
        custom.build(**wanted | {'overwrite': True})


def _changes(manifest: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Returns the differences between a built set and a wanted one, as text."""
    built = {**manifest['options'], 'seed': manifest.get('seed')}
    changed = [
        f'--{name.replace("_", "-")} was {value}, is {wanted[name]}'
        for name, value in built.items()
        if name != 'source' and name in wanted and wanted[name] != value
    ]
    before = [one.get('sha256') for one in manifest['sources'] if isinstance(one, dict)]
    files = tables.files_of(wanted['source'], custom_records.SUFFIXES).values()
    now = [sources.fingerprint(file)['sha256'] for file in files]
    if now != before:
        changed.append(f'the content of {wanted["source"]} has changed')
    return changed
