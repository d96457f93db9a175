"""Single bits of a checkpoint, flipped one after the other: none may go unnoticed."""

from pathlib import Path
import random
import time
from typing import Any

import jax
import numpy as np

from experiments.cluster_test import stores
from experiments.cluster_test.table import Failed, Row
from hrm_jax.checkpoint import layout, store
from hrm_jax.errors import DamagedCheckpoint


def _content(path: Path) -> Any:
    """Everything that a resumed run takes from a checkpoint."""
    arrays = jax.tree.map(np.asarray, store.read_arrays(path))
    return layout.read_meta(path), layout.read_json(path / 'data' / 'metadata'), arrays


def _equal(one: Any, other: Any) -> bool:
    found = jax.tree.map(
        lambda a, b: a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b, one, other
    )
    return all(jax.tree.leaves(found))


def flipped(data: Path, folder: Path, flips: int, rng: random.Random) -> Row:
    """Flips bits anywhere in the files of a checkpoint, and reads it each time.

    A flip is noticed when the read raises DamagedCheckpoint, harmless when it gives what was saved
    (a byte that nothing reads), and silent otherwise.
    """
    began, run = time.monotonic(), folder / 'flips'
    log = folder / 'flips.txt'
    if stores.start(stores.command(data, run, steps=stores.EVERY), log, {}).wait(stores.limit(600)):
        raise Failed(f'the run failed; see {log}')
    path = layout.resolve('latest', run)
    files = [file for file in sorted(path.rglob('*')) if file.is_file() and file.stat().st_size]
    sizes = [file.stat().st_size for file in files]
    whole = _content(path)
    counts = dict.fromkeys(('noticed', 'harmless'), 0)
    for number in range(flips):
        # Every file in turn first, then by size: most bytes are values of arrays.
        file = files[number] if number < len(files) else rng.choices(files, sizes)[0]
        before = file.read_bytes()
        bits = bytearray(before)
        place = rng.randrange(8 * len(bits))
        bits[place // 8] ^= 1 << place % 8
        file.write_bytes(bytes(bits))
        try:
            now = _content(path)
        except DamagedCheckpoint:
            counts['noticed'] += 1
        else:
            name = file.relative_to(path)
            if not _equal(whole, now):
                raise Failed(f'bit {place} of {name} was read without an error, and as another')
            counts['harmless'] += 1
        finally:
            file.write_bytes(before)
    if not _equal(whole, _content(path)):
        raise Failed('the restored files are not what was saved')
    text = ', '.join(f'{count} {name}' for name, count in counts.items())
    return Row('bits of a checkpoint flipped', f'{flips} flips: {text}, none silent', began)
