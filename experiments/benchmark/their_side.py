"""The original's code in a process of its own (peer.py), seen from ours."""

import contextlib
import json
import os
from pathlib import Path
import subprocess
from typing import Any

from experiments.benchmark.cases import Case

PROGRAMS = ('train step', 'forward and backward', 'eval step')


class PeerError(RuntimeError):
    """The original's code could not do what it was asked; the text is its own."""


def obstacle(case: Case) -> str:
    """Why the original's model cannot stand in for this configuration; '' where it can."""
    model = case.config.model
    same = (model.block, model.levels, model.gradient_window, model.low_states) == (
        'attention', 'separate', 'one_step', 1
    ) and model.pos_encodings in ('rope', 'learned')  # fmt: skip
    if not same:
        return 'the original has HRM with attention only'
    if case.config.act.halting != 'q_learning' or case.config.optimizer.name != 'adam_atan2':
        return 'the original halts by Q learning and trains with AdamATan2'
    return ''


class Peer:
    """The original in a process of its own.

    Args:
      python: an interpreter that has torch.
      checkout: of sapientinc/HRM.
      compiled: with torch.compile.
    """

    def __init__(self, python: str, checkout: str, compiled: bool = False):
        self.name = 'original, torch.compile' if compiled else 'original, eager'
        self.compiled = compiled
        self._python = python
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name('peer.py')), checkout],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
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
        config = case.config
        names = ('seq_len', 'vocab_size', 'num_puzzle_identifiers', 'puzzle_emb_ndim', 'H_cycles',
                 'L_cycles', 'H_layers', 'L_layers', 'hidden_size', 'expansion', 'num_heads',
                 'pos_encodings', 'rms_norm_eps', 'rope_theta', 'forward_dtype')  # fmt: skip
        model = {name: getattr(config.model, name) for name in names}
        model['batch_size'] = case.rows
        model['halt_max_steps'] = config.eval_steps
        model['halt_exploration_prob'] = config.act.halt_exploration_prob
        names = ('lr', 'weight_decay', 'beta1', 'beta2', 'puzzle_emb_lr', 'puzzle_emb_weight_decay')
        return self._ask(
            do='make',
            threads=threads,
            model=model,
            rows=case.rows,
            loss_type=config.loss.loss_type,
            optimizer={name: getattr(config.optimizer, name) for name in names},
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
