"""Trains an original's own code in a process of its own: torch, and nothing of this project.

    PYTHON experiments/outcome/theirs.py REQUEST.json RESULT.json

Started by runs.py. The request names the original, its checkout and its settings. HRM and
TinyRecursiveModels are trained by their own ``launch``, which makes loaders, model and optimizers,
trains, averages and evaluates; what it sends to Weights & Biases is the curve. krychu/hrm's loop
keeps no numbers, so that its epochs and evaluations are called one by one here, in its order.
"""

import contextlib
import json
import os
from pathlib import Path
import sys
import tempfile
import types
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'benchmark'))


class Curve:
    """Evaluations of a run, in order."""

    def __init__(self):
        self.steps: list[int] = []
        self.metrics: dict[str, list[float]] = {}

    def add(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(int(step))
        for name, value in values.items():
            self.metrics.setdefault(name, []).append(float(value))
        print(f'step {step}: {values}', flush=True)


class _OnCpu(types.ModuleType):
    """torch as pretrain.py sees it: where it asks for CUDA it gets the CPU."""

    def __init__(self, torch: Any):
        super().__init__('torch')
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def device(self, name: str) -> Any:
        return self._torch.device('cpu' if name == 'cuda' else name)

    def zeros(self, *sizes: Any, device: str = 'cpu', **options: Any) -> Any:
        return self._torch.zeros(*sizes, device='cpu' if device == 'cuda' else device, **options)


def train_by_launch(request: dict[str, Any], curve: Curve) -> dict[str, Any]:
    """HRM and TinyRecursiveModels: all of pretrain.py."""
    import stand_ins
    import torch

    torch.Tensor.cuda = lambda self, *_, **__: self
    os.environ['DISABLE_COMPILE'] = '1'
    made = []

    def log(values: dict[str, Any], step: int) -> None:
        if 'all' in values:  # an evaluation has metrics by set
            curve.add(step, values['all'])

    replaced = stand_ins.register() + stand_ins.register_trainer(log)
    sys.path.insert(0, request['checkout'])
    import pretrain

    pretrain.torch = _OnCpu(torch)
    create = pretrain.create_model

    def create_model(*args: Any, **options: Any) -> Any:
        made.append(create(*args, **options))
        return made[-1]

    pretrain.create_model = create_model
    settings = request['settings']
    with tempfile.TemporaryDirectory() as folder:
        names = {'run_name': 'run', 'project_name': 'outcome', 'checkpoint_path': folder}
        pretrain.launch(settings | names)
    parameters = sum(p.numel() for p in made[0][0].parameters())
    return {'parameters': parameters, 'stand_ins': replaced}


def train_paths(request: dict[str, Any], curve: Curve) -> dict[str, Any]:
    """krychu/hrm: the body of run_training in boardpath.py, with its own epochs and evaluations."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    sys.path.insert(0, request['checkout'])
    from hrm import hrm as original

    settings = request['settings']
    folder, training = Path(settings['data_path']), settings['training']
    original.set_all_seeds(settings['seed'])

    def loader(split: str, shuffle: bool) -> Any:
        arrays = (np.load(folder / split / f'all__{name}.npy') for name in ('inputs', 'labels'))
        tensors = [torch.from_numpy(array.astype(np.int64)) for array in arrays]
        return DataLoader(TensorDataset(*tensors), training['batch_size'], shuffle=shuffle)

    metadata = json.loads((folder / 'train' / 'dataset.json').read_text())
    sizes = {'vocab_cnt': metadata['vocab_size'], 'seq_len': metadata['seq_len']}
    model, device = original.setup_model_and_device(
        original.HRMParameters(**settings['model'], **sizes)
    )
    loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training['lr'], weight_decay=training['weight_decay']
    )
    train, test = loader('train', True), loader('test', False)
    steps = 0
    for epoch in range(1, training['epoch_cnt'] + 1):
        with contextlib.redirect_stdout(None):  # it prints a line for every batch
            original.train_one_epoch(
                model, train, loss, optimizer, device, training['train_segment_cnt'],
                training['grad_clip'],
            )  # fmt: skip
        steps += len(train) * training['train_segment_cnt']
        if epoch % settings['eval_interval']:
            continue
        depth = settings['model']['infer_segment_cnt']
        _, cells, boards = original.evaluate(model, loss, depth, test, device)
        _, _, deeper = original.evaluate(model, loss, 4 * depth, test, device)
        curve.add(steps, {'exact_accuracy': boards, 'accuracy': cells, 'acc4x': deeper})
    # The starts never get a gradient (they are expanded under no_grad): constants in effect.
    trained = [p.numel() for name, p in model.named_parameters() if not name.endswith('_init')]
    return {'parameters': sum(trained), 'stand_ins': []}


def main() -> None:
    """Trains what the request names, and writes the curve."""
    request = json.loads(Path(sys.argv[1]).read_text())
    import torch

    torch.set_num_threads(1)
    curve = Curve()
    train = train_paths if request['original'] == 'paths' else train_by_launch
    facts = train(request, curve)
    facts |= {'torch': torch.__version__, 'threads': torch.get_num_threads()}
    result = {'steps': curve.steps, 'metrics': curve.metrics, 'facts': facts}
    beside = Path(f'{sys.argv[2]}.part')
    beside.write_text(json.dumps(result))
    beside.replace(sys.argv[2])


if __name__ == '__main__':
    main()
