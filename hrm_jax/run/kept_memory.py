"""The memory of a step on a CPU, kept for the next one.

XLA asks the C library for the memory of a step and gives it back at the end. From then on it is the
system's, and touched anew, page by page, it takes up to a quarter of the next step. The C library
can keep it, in one arena: those of other threads than the first give large memory back at once. In
one arena threads wait for each other, which tiny models feel more than new pages, so theirs is left
as it is. Numbers do not change.
"""

from collections.abc import Mapping
import ctypes
import os
from pathlib import Path
import platform

from hrm_jax import files
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import metadata
from hrm_jax.errors import DatasetError

_MOST = 2**31 - 1  # bytes that are kept
_ARENAS, _MAPPED_FROM, _TRIMMED_FROM = -8, -3, -1  # M_ARENA_MAX and the like of malloc.h
_OPTIONS = {_ARENAS: 1, _MAPPED_FROM: _MOST, _TRIMMED_FROM: _MOST}
# Values of a state times layers: below, a step is given some 90 MB, which the C library keeps by
# itself (experiments/results/cpu_pages.md).
_TINY = 2**19
_ACCELERATORS = ('nvidia[0-9]*', 'kfd', 'accel[0-9]*', 'vfio/[0-9]*')  # in /dev: GPUs, TPUs


def pays(config: ExperimentConfig) -> bool:
    """Whether train steps of an experiment need so much memory that keeping it is faster."""
    model, train = config.model, config.train
    vocab_size, seq_len = _sizes(config)
    rows = train.global_batch_size // train.micro_batches
    values = rows * seq_len * model.hidden_size * (model.H_layers + model.L_layers)
    return values * (vocab_size if model.has_symbols else 1) >= _TINY


def _sizes(config: ExperimentConfig) -> tuple[int, int]:
    """Tokens and cells of the data set, those of a 9x9 Sudoku where it is not built yet."""
    model = config.model
    if model.vocab_size and model.seq_len:
        return model.vocab_size, model.seq_len
    path = Path(files.expanded(config.data.path)) / 'train' / metadata.METADATA
    try:
        found = metadata.DatasetMetadata.from_dict(files.read_json(path, DatasetError, dict), path)
    except (DatasetError, OSError):
        return 11, 81
    return found.vocab_size, found.seq_len


def is_ours(
    environment: Mapping[str, str] = os.environ,
    devices: Path = Path('/dev'),
    library: str | None = None,
) -> bool:
    """Whether the memory of steps is the C library's, and nobody else has said how to treat it.

    Args:
      environment: of the process; ``GLIBC_TUNABLES``, also an empty one, is the user's word.
      devices: where GPUs and TPUs would be, which compute in memory of their own.
      library: name of the C library; None: of this process.
    """
    platforms = environment.get('JAX_PLATFORMS', '')
    if platforms:
        on_cpu = platforms.startswith('cpu')
    else:
        on_cpu = not any(any(devices.glob(pattern)) for pattern in _ACCELERATORS)
    name = platform.libc_ver()[0] if library is None else library
    return on_cpu and name == 'glibc' and 'GLIBC_TUNABLES' not in environment


def keep(config: ExperimentConfig | None = None) -> bool:
    """Makes the C library keep the memory of an experiment's steps, where that pays.

    To be called by a command before JAX's backend starts its threads. For the rest of the process.

    Args:
      config: the experiment; None: one whose steps are large.

    Returns:
      Whether it does.
    """
    if not is_ours() or (config is not None and not pays(config)):
        return False
    set_option = getattr(ctypes.CDLL(None), 'mallopt', None)
    if set_option is None:
        return False
    taken = [set_option(option, value) == 1 for option, value in _OPTIONS.items()]
    return all(taken)
