"""An original's code in a process of its own (peer.py), seen from ours."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path
import subprocess
from typing import Any

from experiments import originals
from experiments.benchmark.cases import Case
from hrm_jax.errors import ConfigError

PROGRAMS = ('train step', 'forward and backward', 'eval step')


class PeerError(RuntimeError):
    """The original's code could not do what it was asked; the text is its own."""


def obstacle(case: Case, original: str) -> str:
    """Why an original cannot stand in for this configuration; '' where it can."""
    try:
        _settings(case, original)
    except ConfigError as error:
        return str(error)
    return ''


def _settings(case: Case, original: str) -> dict[str, Any]:
    """The original's settings for a case, at the depth of its evaluations."""
    config, base = case.config, originals.ORIGINALS[original].base
    act, evaluation = config.act, base.eval
    if original == 'paths':
        evaluation = dataclasses.replace(evaluation, halt_max_steps=config.eval_steps)
    else:  # they have one number for training and evaluation
        act = dataclasses.replace(act, halt_max_steps=config.eval_steps)
    rows = config.train.global_batch_size
    train = dataclasses.replace(base.train, global_batch_size=rows)
    return originals.of_original(
        original,  # of data and schedule no program here has anything
        dataclasses.replace(config, act=act, eval=evaluation, train=train, data=base.data),
    )


def _their_environment() -> dict[str, str]:
    """This process's, without our packages."""
    return {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}


class Peer:
    """The original in a process of its own.

    Args:
      python: an interpreter that has torch.
      checkout: of one of the originals (experiments/originals.py).
      compiled: with torch.compile.

    Raises:
      ConfigError: it is no such checkout.
    """

    def __init__(self, python: str, checkout: str, compiled: bool = False):
        self.name = 'original, torch.compile' if compiled else 'original, eager'
        self.compiled, self.original = compiled, originals.name_of(checkout)
        self._python = python
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name('peer.py')), checkout, self.original],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_their_environment(),
        )

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + '\n')
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            code = self._process.wait()
            raise PeerError(
                f'the process of the original ended with {code}; {self._python} must have torch '
                f'and what the original imports (its own words are above)'
            ) from None
        if 'error' in answer:
            raise PeerError(answer['error'])
        return answer

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def make(self, case: Case, threads: int = 0) -> dict[str, Any]:
        """Builds the case's model; returns its facts: parameters, versions, threads.

        Args:
          case: the configuration.
          threads: of torch on a CPU, as many as ours has; 0: as torch likes.
        """
        names = ('seq_len', 'vocab_size', 'num_puzzle_identifiers')
        return self._ask(
            do='make',
            threads=threads,
            settings=_settings(case, self.original),
            sizes={name: getattr(case.config.model, name) for name in names},
            compile=self.compiled,
        )

    def run(self, program: str, times: int) -> tuple[float, int]:
        """Seconds for some runs, and the most memory that was ever in use."""
        answer = self._ask(do='run', program=program, times=times)
        return answer['seconds'], answer['peak_bytes']

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it may have ended
            self._process.stdin.close()
        self._process.wait()
