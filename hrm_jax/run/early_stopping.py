"""Stops a run whose metric no longer improves."""

from collections.abc import Mapping
import math
from typing import Any

from hrm_jax.config import EarlyStoppingConfig


class EarlyStopping:
    """Counts how often the metric came without improving on its best value.

    Training metrics come with every log line, evaluation metrics with every evaluation. The
    state travels in checkpoints, so an interrupted run stops where the whole one would have.

    Args:
      config: metric, direction, patience, least improvement; an empty metric never stops.
    """

    def __init__(self, config: EarlyStoppingConfig):
        self._config = config
        self._best: float | None = None
        self._waited = 0

    @property
    def watches_training(self) -> bool:
        return self._config.metric.startswith('train/')

    @property
    def should_stop(self) -> bool:
        return bool(self._config.metric) and self._waited >= self._config.patience

    @property
    def reason(self) -> str:
        return (
            f'{self._config.metric} has not improved on {self._best} for {self._waited} times '
            f'(train.early_stopping.patience={self._config.patience})'
        )

    def update(self, metrics: Mapping[str, float]) -> None:
        """Looks at new metrics; without the watched one nothing happens."""
        value = metrics.get(self._config.metric)
        if value is None:
            return
        gain = -math.inf
        if math.isfinite(value):
            sign = 1.0 if self._config.mode == 'max' else -1.0
            gain = math.inf if self._best is None else sign * (value - self._best)
        if gain > self._config.min_delta:
            self._best, self._waited = value, 0
        else:
            self._waited += 1

    def get_state(self) -> dict[str, Any]:
        return {'metric': self._config.metric, 'best': self._best, 'waited': self._waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state, unless that watched another metric."""
        if state.get('metric') == self._config.metric:
            self._best, self._waited = state['best'], state['waited']
