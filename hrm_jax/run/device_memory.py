"""Errors about a device's memory, as figures and the settings that help."""

from collections.abc import Callable, Iterator
import contextlib
import re
from typing import Any

import jax

from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import DeviceMemoryError
from hrm_jax.run.summary import human

_MEMORY = re.compile(r'out of memory|ran out of|exceeds? the (memory|limit)|failed to allocate'
                     r'|allocat\w+ [\d.]+ ?\w*b|hbm', re.IGNORECASE)  # fmt: skip
_NO_DEVICE = re.compile(r'No space left|disk quota|file too large', re.IGNORECASE)
_BYTES = re.compile(r'allocat\w+ (?:memory of )?(\d{4,})(?: ?bytes)?')


def is_about_memory(error: BaseException) -> bool:
    """Whether an error means that a device has not enough memory."""
    text = f'{type(error).__name__} {error}'
    return (
        isinstance(error, jax.errors.JaxRuntimeError)
        and bool(_MEMORY.search(text))
        and not _NO_DEVICE.search(text)
    )


def explain(
    error: BaseException,
    config: ExperimentConfig | None = None,
    what: str = 'the program',
    program: Callable[[], Any] | None = None,
) -> DeviceMemoryError:
    """Returns the error that a user can act upon.

    Args:
      error: of the runtime or the compiler.
      config: the experiment, where there is one.
      what: what was to run.
      program: lowers it again, for the compiler's figures.
    """
    text = ' '.join(str(error).split())[:300]
    facts = [text]
    if found := _BYTES.search(text):
        facts.append(f'that is {human(int(found[1]))}')
    facts += _figures(program) + _device_facts()
    return DeviceMemoryError(
        f'{what} needs more memory than a device has: {"; ".join(facts)}. {_advice(config)}'
    )


def _figures(program: Callable[[], Any] | None) -> list[str]:
    """What the compiler plans for the program, where it can be compiled."""
    if program is None:
        return []
    try:
        memory = program().compile().memory_analysis()
    except Exception:  # it is why we are here
        return []
    if memory is None:
        return []
    own = memory.argument_size_in_bytes + memory.output_size_in_bytes
    own -= memory.alias_size_in_bytes
    return [
        f'the compiled program needs {human(own + memory.temp_size_in_bytes)} per device, '
        f'{human(memory.temp_size_in_bytes)} of it temporary'
    ]


def _device_facts() -> list[str]:
    with contextlib.suppress(Exception):
        stats = jax.local_devices()[0].memory_stats() or {}
        if limit := stats.get('bytes_limit'):
            return [f'a device has {human(limit)}, {human(stats.get("bytes_in_use", 0))} in use']
    return []


def _advice(config: ExperimentConfig | None) -> str:
    if config is None:
        return (
            'Use fewer rows at a time: --config.eval.global_batch_size (evaluation), fewer '
            '--samples or puzzles (solve), or more devices.'
        )
    rows, parts = config.train.global_batch_size, config.train.micro_batches
    tips = [f'--config.train.micro_batches={2 * parts} (now {parts}; the same numbers, in parts)']
    if not config.model.remat:
        tips.append('--config.model.remat=true (computes the blocks again in the backward pass)')
    tips += [
        f'a smaller --config.train.global_batch_size (now {rows}) or '
        f'--config.eval.global_batch_size (now {config.eval_batch_size})',
        'more devices (config.mesh)',
    ]
    return f'What helps: {"; ".join(tips)}. --dry-run prints what a run needs.'


@contextlib.contextmanager
def explained(
    config: ExperimentConfig, what: str, program: Callable[[], Any] | None = None
) -> Iterator[None]:
    """Turns errors about a device's memory in its block into ``DeviceMemoryError``."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_about_memory(error):
            raise
        raise explain(error, config, what, program) from error
