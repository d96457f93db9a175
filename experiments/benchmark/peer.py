"""Runs the original's own model code (sapientinc/HRM) in a process of its own, on request.

    PYTHON experiments/benchmark/peer.py CHECKOUT

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


class Peer:
    """The original's model and optimizers, with its train and evaluation loops' bodies.

    Args:
      request: ``model`` and ``batch`` (settings and sizes), ``compile``, ``act_steps``.
    """

    def __init__(self, request: dict[str, Any]):
        from models import losses
        from models.hrm import hrm_act_v1
        from models.sparse_embedding import CastedSparseEmbeddingSignSGD_Distributed

        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.rows = request['rows']
        torch.manual_seed(0)
        with torch.device(self.device):
            inner = hrm_act_v1.HierarchicalReasoningModel_ACTV1(request['model'])
            self.bare = losses.ACTLossHead(inner, loss_type=request['loss_type'])
        self.model = self.bare
        if request['compile']:
            self.model = torch.compile(self.bare, dynamic=False)  # as pretrain.py does
        optimizer = request['optimizer']
        self.sparse = CastedSparseEmbeddingSignSGD_Distributed(
            inner.puzzle_emb.buffers(),
            lr=optimizer['puzzle_emb_lr'],
            weight_decay=optimizer['puzzle_emb_weight_decay'],
            world_size=1,
        )
        from adam_atan2 import AdamATan2

        self.dense = AdamATan2(
            self.bare.parameters(),
            lr=optimizer['lr'],
            weight_decay=optimizer['weight_decay'],
            betas=(optimizer['beta1'], optimizer['beta2']),
        )
        self.batch = self._batch(request)
        self.carry = None
        self.programs = {
            'train step': lambda: self.train(optimize=True),
            'forward and backward': lambda: self.train(optimize=False),
            'eval step': self.evaluate,
        }
        self.parameters = sum(p.numel() for p in self.bare.parameters())

    def _batch(self, request: dict[str, Any]) -> dict[str, torch.Tensor]:
        sizes = request['model']
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

    def evaluate(self) -> None:
        """The body of pretrain.py's evaluate for one batch."""
        self.model.eval()
        with torch.inference_mode():
            carry, finished = self._initial(), False
            while not finished:
                carry, _, _, _, finished = self.model(carry=carry, batch=self.batch, return_keys=[])

    def run(self, program: str, times: int) -> float:
        """Seconds for ``times`` runs."""
        self._wait()
        began = time.perf_counter()
        for _ in range(times):
            self.programs[program]()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()

    def peak_bytes(self) -> int:
        """Most bytes that were in use at once: of the device, on a CPU of the process."""
        if self.device == 'cuda':
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(replaced: list[str]) -> None:
    """Answers requests until the standard input ends.

    Args:
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
                peer = Peer(request)
                answer = {
                    'parameters': peer.parameters,
                    'torch': torch.__version__,
                    'device': peer.device,
                    'threads': torch.get_num_threads(),
                    'stand_ins': replaced,
                }
            else:
                seconds = peer.run(request['program'], request['times'])
                answer = {'seconds': seconds, 'peak_bytes': peer.peak_bytes()}
        except Exception as error:  # the other side must hear of it, whatever it is
            answer = {'error': f'{type(error).__name__}: {error}'}
        answers.write(json.dumps(answer) + '\n')
        answers.flush()


if __name__ == '__main__':
    sys.path.insert(0, sys.argv[1])
    serve(stand_ins.register())
