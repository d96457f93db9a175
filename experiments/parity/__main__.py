"""Compares our numbers with those that the originals produced.

    python -m experiments.parity DIR [--only NAME ...]

Runs every fixture found under DIR with the project's code alone and prints a table. The check
is chosen by the fixture's name prefix, or by the arrays and the fields of the JSON that it holds,
so that fixtures of the same kinds with other dimensions and names run too. Fixtures (.npz) of a
kind without a check are listed as not covered, and counted apart from other files. Exit code 0:
everything passed; 1: something failed; 2: nothing was checked, or --only names something unknown.
"""

import argparse
import collections
from collections.abc import Sequence
import fnmatch
import importlib
import os
from pathlib import Path
import pkgutil
import sys
import traceback

from experiments.parity import registry


def discover(folder: Path, prefix: str = '') -> tuple[list[registry.Fixture], list[str]]:
    """Finds the fixtures with a check below ``folder``, and the files without one."""
    fixtures, unknown = [], []
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for entry in sorted(folder.iterdir()):
        groups[entry.name if entry.is_dir() else entry.name.split('.', 1)[0]].append(entry.name)
    for stem, files in groups.items():
        fixture = registry.Fixture(prefix + stem, folder, tuple(files))
        try:
            known = registry.find(fixture) is not None
        except Exception:  # a damaged file: run() reports it
            known = True
        if known:
            fixtures.append(fixture)
        elif (folder / stem).is_dir():
            below, rest = discover(folder / stem, f'{prefix}{stem}/')
            fixtures += below
            unknown += rest
        else:
            unknown += [prefix + name for name in files]
    return fixtures, unknown


def run(fixture: registry.Fixture) -> list[registry.Row]:
    """Runs the check of one fixture; an exception is a failure."""
    report = registry.Report(fixture.name)
    try:
        registry.find(fixture).run(fixture, report)
    except Exception as error:  # any fault of the checked code is the fixture's failure
        traceback.print_exc()
        note = f'{type(error).__name__}: {error}'.splitlines()[0]
        report.rows.append(registry.Row(fixture.name, 'check', float('nan'), 0, False, note))
    if not report.rows:
        report.rows.append(
            registry.Row(fixture.name, 'check', float('nan'), 0, False, 'compared nothing')
        )
    return report.rows


def load_checks() -> None:
    """Imports every module beside this one, which registers its checks."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != '__main__':
            importlib.import_module(f'experiments.parity.{module.name}')


def format_table(rows: Sequence[registry.Row]) -> str:
    """One line a comparison."""
    header = ('fixture', 'compared', 'deviation', 'tolerance', 'verdict')
    lines = [header] + [
        (
            row.fixture,
            row.what,
            f'{row.deviation:.2e}',
            f'{row.tolerance:.0e}' if row.tolerance else '0',
            ('pass' if row.passed else 'FAIL') + (f' ({row.note})' if row.note else ''),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return '\n'.join(
        '  '.join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]
        )
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Checks the fixtures below a folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.parity',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('dir', type=Path, help='folder of fixtures')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='fixtures to run (* and ? match)')
    args = parser.parse_args(argv)
    if not args.dir.is_dir():
        print(f'error: {args.dir} must be a folder of fixtures.', file=sys.stderr)
        return 2
    load_checks()
    fixtures, unknown = discover(args.dir)
    if args.only:
        for name in args.only:
            if not any(fnmatch.fnmatch(f.name, name) for f in fixtures):
                known = ', '.join(f.name for f in fixtures) or 'none'
                print(f'error: no fixture with a check is called {name}; known here: {known}.',
                      file=sys.stderr)  # fmt: skip
                return 2
        fixtures = [f for f in fixtures if any(fnmatch.fnmatch(f.name, n) for n in args.only)]
    arrays = {name.removesuffix('.npz') for name in unknown if name.endswith('.npz')}
    not_covered = sorted(name for name in arrays if not name.endswith('.weights'))
    unknown = [name for name in unknown if name.split('.', 1)[0] not in not_covered]
    rows = {}
    for fixture in fixtures:
        print(f'checking {fixture.name} ...', file=sys.stderr)
        rows[fixture.name] = run(fixture)
    if rows:
        print(format_table([row for group in rows.values() for row in group]))
    for title, names in (('not covered', not_covered), ('without a check', unknown)):
        if names:
            print(f'\n{title}:')
            print('\n'.join(f'  {name}' for name in names))
    failed = sum(not all(row.passed for row in group) for group in rows.values())
    counts = [f'{len(rows) - failed} passed', f'{failed} failed']
    counts += [f'{len(not_covered)} not covered'] if not_covered else []
    print('\n' + ', '.join([*counts, f'{len(unknown)} without a check']))
    return 2 if not rows else int(failed > 0)


if __name__ == '__main__':
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # the fixtures were made on CPU, in float32
    sys.exit(main())
