"""Digests as an item of a checkpoint, which orbax writes in the background.

Apart from digests.py, as importing orbax takes longer than a small model takes to answer.
"""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import future

from hrm_jax.checkpoint import digests, layout


class DigestHandler(ocp.AsyncCheckpointHandler):
    """Writes digests as an item of a checkpoint, in the background; they are read by ``read``."""

    async def async_save(self, directory: epath.Path, args: 'DigestSave') -> list[Any]:
        return [
            future.CommitFutureAwaitingContractedSignals(
                self._write(directory, args), name='digests'
            )
        ]

    def save(self, directory: epath.Path, args: 'DigestSave') -> None:
        self._write_now(directory, args)

    async def _write(self, directory: epath.Path, args: 'DigestSave') -> None:
        self._write_now(directory, args)

    def _write_now(self, directory: epath.Path, args: 'DigestSave') -> None:
        found = args.arrays
        arrays = found.fetch() if isinstance(found, digests.Pending) else dict(found)
        values = layout.sealed({'arrays': arrays, 'json': dict(args.values)})
        if jax.process_index() == 0:
            (directory / digests.FILE).write_text(json.dumps(values, indent=0))

    def restore(self, directory: epath.Path, args: Any = None) -> Any:
        return json.loads((directory / digests.FILE).read_text())


@ocp.args.register_with_handler(DigestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class DigestSave(ocp.args.CheckpointArgs):
    """What the item is made of.

    Attributes:
      arrays: the digests, or what the devices are computing.
      values: name of a JSON item -> its digest.
    """

    arrays: digests.Pending | Mapping[str, str]
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
