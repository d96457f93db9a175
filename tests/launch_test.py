"""The launch recipes: the commands that they give, and what they do when a run ends."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml

from hrm_jax import main
from tests import tiny_run

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / 'experiments' / 'launch'
RUN = ['--config=configs/arc1.py', '--workdir=/share/a run']
SETTINGS = {
    'multi_gpu.sh': {},
    'slurm.sh': {'SLURM_JOB_ID': '7'},
    'tpu_pod.sh': {'NAME': 'hrm', 'ZONE': 'z', 'ACCELERATOR_TYPE': 'v5litepod-16',
                   'RUNTIME_VERSION': 'v2', 'NFS': '1.2.3.4:/share'},
    'xpk.sh': {'NAME': 'hrm', 'CLUSTER': 'c', 'ZONE': 'z', 'TPU_TYPE': 't', 'IMAGE': 'i'},
    'gke.sh': {'NAME': 'hrm', 'IMAGE': 'i', 'CLAIM': 'share', 'ACCELERATOR': 't',
               'TOPOLOGY': '4x4', 'HOSTS': '4', 'CHIPS': '4'},
    'colab.sh': {'EXTRA': 'tpu'},
}  # fmt: skip


def start(script, flags=RUN, **settings):
    environment = {name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}
    environment |= {'PYTHON': sys.executable, 'PAUSE': '0', 'CUDA_VISIBLE_DEVICES': ''}
    environment |= SETTINGS[script] | {name: str(value) for name, value in settings.items()}
    return subprocess.Popen(
        ['bash', str(FOLDER / script), *flags], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def launch(script, flags=RUN, **settings):
    """Returns the exit code and what was printed."""
    process = start(script, flags, **settings)
    try:
        text, _ = process.communicate(timeout=300)
    finally:
        process.terminate()  # the scripts pass it on
    return process.returncode, text


def commands(text):
    """Every command in a dry run, with those inside --command= as their own."""
    found = []
    for line in text.splitlines():
        words = shlex.split(line)
        found.append(words)
        found += [shlex.split(w.partition('=')[2]) for w in words if w.startswith('--command=')]
    return found


def stand_in(folder, name, text):
    """A program that writes its arguments into calls.txt and then does as told."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {folder}/calls.txt\n{text}\n')
    path.chmod(0o755)
    return path


def calls(folder):
    return (folder / 'calls.txt').read_text().splitlines()


@pytest.mark.parametrize('script', sorted(set(SETTINGS) - {'gke.sh'}))
def test_the_trainer_gets_flags_that_it_knows(script):
    code, text = launch(script, PROCESSES=2, DRY_RUN=1)
    assert code == 0, text
    trainers = [c[c.index('hrm_jax.main') + 1 :] for c in commands(text) if 'hrm_jax.main' in c]
    assert len(trainers) == (2 if script == 'multi_gpu.sh' else 1)
    main.define_flags()
    for number, flags in enumerate(trainers):
        assert flags[-2:] == RUN
        names = {flag.partition('=')[0].removeprefix('--') for flag in flags}
        assert names <= set(main.FLAGS), names
        assert (script == 'colab.sh') != ('--distributed=on' in flags)
        if script == 'multi_gpu.sh':
            assert {'--num_processes=2', f'--process_id={number}'} <= set(flags)


def test_every_gpu_goes_to_one_process():
    _, text = launch('multi_gpu.sh', PROCESSES=2, DRY_RUN=1, CUDA_VISIBLE_DEVICES='0,1,4,5')
    assert [c[1] for c in commands(text)] == [f'CUDA_VISIBLE_DEVICES={x}' for x in ('0,1', '4,5')]
    code, text = launch('multi_gpu.sh', PROCESSES=3, CUDA_VISIBLE_DEVICES='0,1,4,5')
    assert (code, text) == (2, 'error: PROCESSES=3 must divide the 4 GPUs of this machine\n')


def test_the_jobset_is_a_manifest():
    code, text = launch('gke.sh', DRY_RUN=1)
    assert code == 0, text
    job = yaml.safe_load(text[text.index('apiVersion') : text.index('kubectl apply')])
    assert job['spec']['failurePolicy']['maxRestarts'] == 100
    slices = job['spec']['replicatedJobs'][0]['template']['spec']
    assert slices['completions'] == slices['parallelism'] == 4
    container = slices['template']['spec']['containers'][0]
    assert container['command'] == ['python', '-m', 'hrm_jax.main', '--distributed=on', *RUN]
    assert container['resources']['limits'] == {'google.com/tpu': 4}
    rule = slices['podFailurePolicy']['rules'][0]['onExitCodes']
    assert (rule['containerName'], rule['values']) == (container['name'], [1, 2])


@pytest.mark.parametrize('script', sorted(SETTINGS))
def test_what_is_missing_is_named(script):
    code, text = launch(script, RUN[:1], DRY_RUN=1)
    assert (code, 'give --workdir=...' in text) == (2, True), text
    for name in SETTINGS[script]:
        if name not in ('NFS', 'EXTRA', 'SLURM_JOB_ID'):
            code, text = launch(script, DRY_RUN=1, **{name: ''})
            assert (code, f'error: set {name};' in text) == (2, True), text
            break


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(('end', 'restarts', 'code'), [(143, True, 0), (1, False, 1)])
def test_a_preempted_trainer_is_restarted_and_a_wrong_one_is_not(
    tmp_path, end, restarts, code, processes
):
    python = stand_in(tmp_path, 'python', f'mkdir {tmp_path}/first 2>/dev/null && exit {end}; :')
    found, text = launch('multi_gpu.sh', PYTHON=python, PROCESSES=processes, PORT=1)
    assert found == code, text
    assert len(calls(tmp_path)) == processes * (1 + restarts)


def test_a_stop_reaches_the_trainer_and_ends_the_script(tmp_path):
    python = stand_in(
        tmp_path, 'python', "trap 'exit 143' TERM; for _ in {1..600}; do sleep 0.1; done"
    )
    process = start('multi_gpu.sh', PYTHON=python, PROCESSES=2, PORT=1)
    while not (tmp_path / 'calls.txt').exists() or len(calls(tmp_path)) < 2:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 143, text
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize(
    ('end', 'count', 'requeued'),
    [(143, 0, True), (137, 99, True), (143, 100, False), (1, 0, False)],
)
def test_a_slurm_job_goes_back_into_the_queue(tmp_path, end, count, requeued):
    stand_in(tmp_path, 'srun', f'exit {end}')
    stand_in(tmp_path, 'scontrol', '')
    path = f'{tmp_path}:{os.environ["PATH"]}'
    code, text = launch('slurm.sh', PATH=path, SLURM_RESTART_COUNT=count)
    assert code == end, text
    assert ('scontrol requeue 7' in calls(tmp_path)) == requeued


def test_a_notice_to_the_shell_of_a_slurm_job_reaches_its_tasks(tmp_path):
    """srun ends its tasks at once where it gets SIGTERM itself, so it must not."""
    stand_in(
        tmp_path,
        'srun',
        f"""
        trap 'echo ended by a signal >> {tmp_path}/calls.txt; exit 1' TERM
        for _ in {{1..600}}; do [[ -e {tmp_path}/saved ]] && exit 143; sleep 0.1; done""",
    )
    stand_in(tmp_path, 'scancel', f'touch {tmp_path}/saved')
    stand_in(tmp_path, 'scontrol', '')
    process = start('slurm.sh', PATH=f'{tmp_path}:{os.environ["PATH"]}')
    while not (tmp_path / 'calls.txt').exists():
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert calls(tmp_path)[1] == 'scancel --signal=TERM 7'
    assert calls(tmp_path)[-1] == 'scontrol requeue 7'


@pytest.mark.parametrize(
    ('state', 'comes_back'),
    [
        ('RUNNING Reason=None', True),
        ('COMPLETING Reason=TimeLimit', True),
        ('COMPLETING Reason=None', False),  # what SLURM 22.05 shows of a job that scancel ends
        ('CANCELLED Reason=None', False),
    ],
)
def test_a_slurm_job_that_was_cancelled_does_not_come_back(tmp_path, state, comes_back):
    stand_in(tmp_path, 'srun', 'exit 143')
    stand_in(
        tmp_path,
        'scontrol',
        f'[[ $1 != show ]] || echo "JobId=7 JobState={state} Dependency=(null)"',
    )
    code, text = launch('slurm.sh', PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert code == 143, text
    assert ('scontrol requeue 7' in calls(tmp_path)) == comes_back


def test_a_slice_that_is_taken_away_is_asked_for_again(tmp_path):
    state = tmp_path / 'state'
    stand_in(tmp_path, 'git', '')
    stand_in(
        tmp_path,
        'gcloud',
        f"""
        case "$*" in
          *describe*) cat {state} 2>/dev/null ;;
          *create*) echo ACTIVE > {state} ;;
          *delete*) rm {state} ;;
          *hrm_jax.main*) mkdir {tmp_path}/first 2>/dev/null || exit 0
                          echo SUSPENDED > {state}; exit 1 ;;
        esac""",
    )
    code, text = launch('tpu_pod.sh', PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert code == 0, text
    words = ('create', 'scp', 'hrm_jax.main', 'delete')
    done = [next(w for w in words if w in c) for c in calls(tmp_path) if any(w in c for w in words)]
    assert done == ['create', 'scp', 'hrm_jax.main', 'delete', 'create', 'scp', 'hrm_jax.main']


def test_two_processes_train_on_this_machine(tmp_path):
    data = tiny_run.write_dataset(tmp_path / 'data')
    config = tiny_run.write_config_file(
        tmp_path / 'config.py', data, train={'max_steps': 2}, eval={'max_examples': 4}
    )
    code, text = launch(
        'multi_gpu.sh', [f'--config={config}', f'--workdir={tmp_path / "run"}'], PROCESSES=2,
        JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS=1, MAX_RESTARTS=0,
        JAX_COMPILATION_CACHE_DIR=tmp_path / 'compiled',
    )  # fmt: skip
    assert code == 0, text
    assert '2 x cpu' in text
    log = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in log] == [1, 2]
