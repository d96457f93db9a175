"""Which checkpoints of a run are kept: the latest, the best, and the newest healthy ones.

A checkpoint is healthy when its training loss had not risen: a run that diverges may be saved while
its loss climbs and is still finite, and is branched from one of those before (run/branches.py).
"""

from collections.abc import Iterable, Mapping, Sequence
import math
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers

from hrm_jax.checkpoint import layout
from hrm_jax.config import CheckpointConfig
from hrm_jax.errors import CheckpointError

RISE = 1.2  # times the least loss of the checkpoints before: above it a loss has risen


def _loss(meta: Mapping[str, Any]) -> float | None:
    """Training loss of the step that a checkpoint was taken after; None: it records none."""
    loss = (meta.get('record') or {}).get('train/lm_loss')
    return loss if isinstance(loss, (int, float)) and math.isfinite(loss) else None


def _healthy(losses: Iterable[tuple[int, float | None]]) -> list[int]:
    """Steps whose loss had not risen, of pairs of step and loss in the order of steps."""
    least, found = math.inf, []
    for step, loss in losses:
        if loss is not None and loss <= RISE * least:
            found.append(step)
            least = min(least, loss)
    return found


def healthy_step(workdir: Path) -> int | None:
    """Returns the step of the newest healthy checkpoint.

    Where none records a loss it is the oldest one; None: there is no checkpoint that can be read.
    """
    losses = []
    for step in layout.steps(workdir):
        try:
            meta = layout.read_meta(layout.root(workdir) / layout.FOLDER / str(step))
        except CheckpointError:
            continue
        losses.append((step, _loss(meta)))
    found = _healthy(losses) or [step for step, _ in losses[:1]]
    return found[-1] if found else None


class KeepHealthy:
    """orbax's policy that keeps the newest healthy checkpoints.

    Args:
      folder: of the checkpoints.
      count: how many.
    """

    def __init__(self, folder: Path, count: int):
        self._folder, self._count = folder, count
        self._known: dict[int, float | None] = {}  # step -> loss

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether to keep each checkpoint; ``context`` is orbax's and not looked at."""
        for one in checkpoints:
            if one.step not in self._known:
                try:
                    meta = layout.read_meta(self._folder / str(one.step))
                except CheckpointError:  # the one that is being written
                    continue
                self._known[one.step] = _loss(meta)
        losses = [(one.step, self._known.get(one.step)) for one in checkpoints]
        kept = set(_healthy(losses)[-self._count :])
        return [one.step in kept for one in checkpoints]


def policy(config: CheckpointConfig, folder: Path) -> checkpoint_managers.PreservationPolicy:
    """Returns orbax's policy for a folder of checkpoints."""
    policies: list[checkpoint_managers.PreservationPolicy] = [
        checkpoint_managers.LatestN(config.keep_latest)
    ]
    if config.keep_best:
        policies.append(
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: layout.score(metrics, config),
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            )
        )
    if config.keep_healthy:
        policies.append(KeepHealthy(folder, config.keep_healthy))
    return checkpoint_managers.AnyPreservationPolicy(policies)
