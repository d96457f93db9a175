"""Models that are installed with this package: weights, and beside them a card (.md)."""

from pathlib import Path

from hrm_jax.errors import CheckpointError

FOLDER = Path(__file__).resolve().parent.parent / 'pretrained'
# What ``hrm-jax solve`` answers with where nobody names a checkpoint.
DEFAULT = 'sudoku9'


def names() -> list[str]:
    """Names of the models, sorted."""
    return sorted(path.stem for path in FOLDER.glob('*.safetensors'))


def find(name: str) -> Path:
    """Returns the weights of a model.

    Raises:
      CheckpointError: there is no such model; the message lists them.
    """
    CheckpointError.require(
        name in names(),
        f'no model called {name!r} is installed with this package; there are: '
        f'{", ".join(names()) or "none"}. Or name a checkpoint.',
    )
    return FOLDER / f'{name}.safetensors'


def resolved(selector: str) -> str:
    """Returns the weights of an installed model where ``selector`` is its name, else itself.

    What is there under this name, relative to the working directory, comes first.
    """
    if selector in names() and not Path(selector).exists():
        return str(find(selector))
    return selector


def card(name: str) -> str:
    """Returns what is known of a model: data, command, hours, results."""
    return find(name).with_suffix('.md').read_text(encoding='utf-8')
