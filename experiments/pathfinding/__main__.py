"""Path finding: the study, and a look at one board.

    python -m experiments.pathfinding study --small
    python -m experiments.pathfinding show --workdir runs/pathfinding_hl --size 20

``COMMAND --help`` shows the flags of a command.
"""

from collections.abc import Sequence
import sys

from experiments.pathfinding import show, study

# Workers of the study are started by spawn, which cannot find functions of a __main__ module:
# each command has a module of its own.
COMMANDS = {'study': study.main, 'show': show.main}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ['--help']
    if name in COMMANDS:
        return COMMANDS[name](rest)
    if name in ('-h', '--help'):
        print(__doc__)
        return 0
    print(f'error: {name!r} is not a command; there are {", ".join(COMMANDS)}', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
