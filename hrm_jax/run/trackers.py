"""TensorBoard and Weights & Biases: where the curves of a run go besides metrics.jsonl."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import netrc
import os
from pathlib import Path
from typing import Any, Protocol
import urllib.parse

from hrm_jax import files
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

_WANDB = 'https://api.wandb.ai'
_SECONDS = 30.0  # that a run waits for the server before it goes on offline


class Tracker(Protocol):
    """What ``Writers`` asks of a destination."""

    def write_settings(self, config: ExperimentConfig, measured: Sequence[str]) -> None: ...

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """TensorBoard event files; tensorboardX writes them in a thread of its own."""

    def __init__(self, directory: Path, first_step: int):
        import tensorboardX

        # Events of steps that an interrupted run did after its last checkpoint are hidden.
        purge = first_step if first_step > 1 else None
        self._writer = tensorboardX.SummaryWriter(os.fspath(directory), purge_step=purge)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, float(value), step)

    def write_settings(self, config: ExperimentConfig, measured: Sequence[str]) -> None:
        """Writes the configuration as text, and for the table of hyperparameters.

        Args:
          config: the experiment.
          measured: metrics that the table shows beside the settings.
        """
        from tensorboardX import summary

        settings = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in _flat(config.to_dict()).items()
        }
        writer = self._writer.file_writer
        assert writer is not None  # there is one while the summary writer is open
        for event in summary.hparams(settings, dict.fromkeys(measured, 0.0)):
            writer.add_summary(event)
        lines = ''.join(f'| {name} | {value} |\n' for name, value in settings.items())
        self._writer.add_text('settings', f'| setting | value |\n|---|---|\n{lines}', 0)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases run that continues under the same id after a resume."""

    def __init__(self, directory: Path, config: ExperimentConfig, log: Callable[[str], None]):
        try:
            import wandb  # pyright: ignore[reportMissingImports]  # not among the requirements
        except ImportError as error:
            raise ConfigError(
                'logging.wandb=true needs the package wandb. Install it (pip install wandb) or '
                'leave logging.wandb at false.'
            ) from error
        id_path = directory / 'wandb_id.txt'
        wanted = {
            'project': config.logging.wandb_project,
            'name': config.name,
            'id': id_path.read_text().strip() if id_path.exists() else None,
            'dir': os.fspath(directory),
            'config': config.to_dict(),
        }
        self._run, why = _start_wandb(wandb, wanted)
        if why:
            log(
                f'note: Weights & Biases works offline ({why}); the run continues, and "wandb sync '
                f'{directory / "wandb"}/offline-run-*" uploads it later.'
            )
        files.write_text(id_path, self._run.id)

    def write_settings(self, config: ExperimentConfig, measured: Sequence[str]) -> None:
        pass  # given at the start

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


def _start_wandb(wandb: Any, wanted: dict[str, Any]) -> tuple[Any, str]:
    """Begins a W&B run, offline where there is no key or no network.

    Args:
      wandb: the package.
      wanted: arguments of ``wandb.init``.

    Returns:
      The run, and why it is offline: '' where it is not, or where the environment asks for it.
    """
    if os.environ.get('WANDB_MODE') or _has_key():
        try:
            settings = {} if 'WANDB_INIT_TIMEOUT' in os.environ else {'init_timeout': _SECONDS}
            return wandb.init(**wanted, resume='allow', settings=settings), ''
        except Exception as error:  # no network, a wrong key, a server that does not answer
            if os.environ.get('WANDB_MODE') == 'offline':
                raise
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            reason = why[0][:120]
    else:
        reason = 'no API key; "wandb login" stores one'
    return wandb.init(**wanted, mode='offline', settings={'silent': True}), reason


def _has_key() -> bool:
    """Whether W&B can log in without asking: a prompt would stop a run that nobody watches."""
    if os.environ.get('WANDB_API_KEY'):
        return True
    host = urllib.parse.urlparse(os.environ.get('WANDB_BASE_URL') or _WANDB).hostname or ''
    places = [os.environ.get('NETRC'), '~/.netrc', '~/_netrc']  # where "wandb login" stores keys
    for path in (Path(os.path.expanduser(place)) for place in places if place):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(path).authenticators(host):
                return True
    return False


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f'{prefix}{name}.') if nested else {prefix + name: value}
    return flat
