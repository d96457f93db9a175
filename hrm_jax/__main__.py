"""``hrm-jax COMMAND ...`` (also ``python -m hrm_jax COMMAND ...``): all commands.

A command's module is imported when it is called, and JAX when the command needs it.
"""

from collections.abc import Sequence
import importlib
import sys

# Command -> (module with ``main(argv)``, one line of help).
COMMANDS = {
    'train': ('hrm_jax.main', 'train a model, or resume its training'),
    'eval': ('hrm_jax.main', 'evaluate a checkpoint'),
    'sweep': ('hrm_jax.cli.sweep', 'train with several settings and seeds'),
    'compare': ('hrm_jax.cli.compare', 'compare runs: settings, results, speed, cost, curves'),
    'arc': ('hrm_jax.cli.arc', 'adapt a model to new ARC tasks and write a submission'),
    'solve': ('hrm_jax.cli.solve', 'answer puzzles with a trained model'),
    'score': ('hrm_jax.cli.score', 'score saved predictions: ARC, Lisp, rules, confidence'),
    'view': ('hrm_jax.cli.view', 'show a data set, predictions or reasoning as a page or picture'),
    'play': ('hrm_jax.cli.play', 'a page in which a model solves Sudokus'),
    'convert': ('hrm_jax.cli.convert', 'convert checkpoints from and to other formats'),
    'checkpoints': ('hrm_jax.cli.checkpoints', 'list, inspect and compare checkpoints'),
}


def usage() -> str:
    """Returns the text of ``hrm-jax --help``."""
    listed = '\n'.join(f'  {name:<12} {text}' for name, (_, text) in COMMANDS.items())
    return (
        f'usage: hrm-jax COMMAND [flags]\n\nHierarchical Reasoning Models in JAX.\n\n'
        f'commands:\n{listed}\n\n'
        f'hrm-jax COMMAND --help shows the flags of a command; hrm-jax --version the version.\n'
        f'Data sets are built with python -m data_builders.'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code.

    Args:
      argv: arguments without the name of the program; None: those of this process.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('--help', '-h', 'help'):
        print(usage())
        return
    if name == '--version':
        import hrm_jax

        print(hrm_jax.__version__)
        return
    if name not in COMMANDS:
        print(f'error: {name!r} is not a command\n\n{usage()}', file=sys.stderr)
        raise SystemExit(2)
    module = importlib.import_module(COMMANDS[name][0])
    if name in ('train', 'eval'):
        module.main([f'hrm-jax {name}', f'--mode={name}', *rest])
    else:
        module.main(rest)


if __name__ == '__main__':
    main()
