"""Runs an original's own model code in a process of its own, on request.

    PYTHON experiments/benchmark/peer.py CHECKOUT hrm|trm|paths

Started by their_side.py. Every line on the standard input is a JSON object, and gets
one on the standard output: ``{"do": "make", ...}`` builds a model, ``{"do": "run", "program":
NAME, "times": N}`` runs a program N times and answers with the seconds that took. A process of its
own, because torch and jax would otherwise share threads and memory. No part of this file needs
the rest of the project or jax.
"""

import json
import os
from pathlib import Path
import resource
import sys
import time
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import stand_ins


class Puzzles:
    """Model and optimizers of HRM or TinyRecursiveModels, with the bodies of their loops.

    Args:
      request: ``original``, ``settings`` (experiments/originals.py), ``sizes``, ``compile``.
    """

    def __init__(self, request: dict[str, Any]):
        from models import losses
        from models.sparse_embedding import CastedSparseEmbeddingSignSGD_Distributed
        from utils.functions import load_model_class

        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        settings, sizes = request['settings'], request['sizes']
        self.rows = settings['global_batch_size']
        arch = {k: v for k, v in settings['arch'].items() if k not in ('name', 'loss')}
        torch.manual_seed(0)
        with torch.device(self.device):
            inner = load_model_class(settings['arch']['name'])(
                {**arch, **sizes, 'batch_size': self.rows}
            )
            loss_type = settings['arch']['loss']['loss_type']
            self.bare = losses.ACTLossHead(inner, loss_type=loss_type)
        self.model = self.bare
        if request['compile']:
            self.model = torch.compile(self.bare, dynamic=False)  # as pretrain.py does
        self.sparse = CastedSparseEmbeddingSignSGD_Distributed(
            inner.puzzle_emb.buffers(),
            lr=settings['puzzle_emb_lr'],
            weight_decay=settings['puzzle_emb_weight_decay'],
            world_size=1,
        )
        from adam_atan2 import AdamATan2

        self.dense = AdamATan2(
            self.bare.parameters(),
            lr=settings['lr'],
            weight_decay=settings['weight_decay'],
            betas=(settings['beta1'], settings['beta2']),
        )
        self.average = None
        if settings.get('ema'):
            from models.ema import EMAHelper

            self.average = EMAHelper(mu=settings['ema_rate'])
            self.average.register(self.bare)
        self.batch = self._batch(sizes)
        self.carry = None
        self.programs = {
            'train step': lambda: self.train(optimize=True),
            'forward and backward': lambda: self.train(optimize=False),
            'eval step': self.evaluate,
        }
        self.parameters = sum(p.numel() for p in self.bare.parameters())

    def _batch(self, sizes: dict[str, int]) -> dict[str, torch.Tensor]:
        shape = (self.rows, sizes['seq_len'])
        ids = min(sizes['num_puzzle_identifiers'], 1000)
        batch = {
            'inputs': torch.randint(1, sizes['vocab_size'], shape, dtype=torch.int32),
            'labels': torch.randint(1, sizes['vocab_size'], shape, dtype=torch.int32),
            'puzzle_identifiers': torch.randint(0, ids, (self.rows,), dtype=torch.int32),
        }
        return {name: values.to(self.device) for name, values in batch.items()}

    def _initial(self):
        with torch.device(self.device):
            return self.bare.initial_carry(self.batch)

    def train(self, optimize: bool) -> None:
        """The body of pretrain.py's train_batch, without its copy of the metrics to the host."""
        self.model.train()
        if self.carry is None:
            self.carry = self._initial()
        self.carry, loss, _, _, _ = self.model(carry=self.carry, batch=self.batch, return_keys=[])
        ((1 / self.rows) * loss).backward()
        for optimizer in (self.sparse, self.dense):
            if optimize:
                optimizer.step()
            optimizer.zero_grad()
        if optimize and self.average:
            self.average.update(self.bare)

    def evaluate(self) -> None:
        """The body of pretrain.py's evaluate for one batch."""
        self.model.eval()
        with torch.inference_mode():
            carry, finished = self._initial(), False
            while not finished:
                carry, _, _, _, finished = self.model(carry=carry, batch=self.batch, return_keys=[])


class Boards:
    """krychu/hrm's model and optimizer, with the bodies of its loops; as ``Puzzles``."""

    def __init__(self, request: dict[str, Any]):
        from hrm import hrm as original

        settings, sizes = request['settings'], request['sizes']
        training = settings['training']
        self.segments = settings['model']['infer_segment_cnt']
        self.clip = training['grad_clip']
        torch.manual_seed(0)
        tokens = {'vocab_cnt': sizes['vocab_size'], 'seq_len': sizes['seq_len']}
        self.bare, self.device = original.setup_model_and_device(
            original.HRMParameters(**settings['model'], **tokens)
        )
        self.model = torch.compile(self.bare, dynamic=False) if request['compile'] else self.bare
        self.loss = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(
            self.bare.parameters(), lr=training['lr'], weight_decay=training['weight_decay']
        )
        shape = (training['batch_size'], sizes['seq_len'])
        self.inputs, self.labels = (
            torch.randint(1, sizes['vocab_size'], shape).to(self.device) for _ in range(2)
        )
        self.state = None
        self.programs = {
            'train step': lambda: self.train(optimize=True),
            'forward and backward': lambda: self.train(optimize=False),
            'eval step': self.evaluate,
        }
        self.parameters = sum(p.numel() for p in self.bare.parameters())

    def train(self, optimize: bool) -> None:
        """One segment of train_one_epoch, with its update."""
        self.bare.train()
        if self.state is None:
            self.state = self.bare.init_z(self.inputs)
        self.optimizer.zero_grad(set_to_none=True)
        state, logits, _ = self.model(self.state, self.inputs, False)
        self.loss(logits.transpose(1, 2), self.labels).backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self.clip)
        if optimize:
            self.optimizer.step()
        self.state = tuple(part.detach() for part in state)

    @torch.no_grad()
    def evaluate(self) -> None:
        """The body of evaluate for one batch: all segments, with the loss of each."""
        self.bare.eval()
        state = self.bare.init_z(self.inputs)
        for _ in range(self.segments):
            state, logits, _ = self.model(state, self.inputs, False)
            float(self.loss(logits.transpose(1, 2), self.labels))
        (logits.argmax(dim=-1) == self.labels).sum().item()


def run(peer: Any, program: str, times: int) -> float:
    """Seconds for ``times`` runs of a program."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(times):
        peer.programs[program]()
    wait()
    return time.perf_counter() - began


def peak_bytes() -> int:
    """Most bytes that were in use at once: of the device, on a CPU of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(kind: type, replaced: list[str]) -> None:
    """Answers requests until the standard input ends.

    Args:
      kind: Puzzles or Boards.
      replaced: packages that stand-ins take the place of, for the answers.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # whatever a compiler prints must not be taken for an answer
    peer = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request['do'] == 'make':
                peer = None  # the old one's memory first
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                if request.get('threads'):
                    torch.set_num_threads(request['threads'])
                peer = kind(request)
                answer = {
                    'parameters': peer.parameters,
                    'torch': torch.__version__,
                    'device': str(peer.device),
                    'threads': torch.get_num_threads(),
                    'stand_ins': replaced,
                }
            else:
                seconds = run(peer, request['program'], request['times'])
                answer = {'seconds': seconds, 'peak_bytes': peak_bytes()}
        except Exception as error:  # the other side must hear of it, whatever it is
            answer = {'error': f'{type(error).__name__}: {error}'}
        answers.write(json.dumps(answer) + '\n')
        answers.flush()


if __name__ == '__main__':
    sys.path.insert(0, sys.argv[1])
    if sys.argv[2] == 'paths':
        serve(Boards, [])
    else:
        serve(Puzzles, stand_ins.register())
