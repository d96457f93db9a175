import os
import subprocess
import sys

import pytest

from hrm_jax.run import huge_pages

PRINTS = (
    'import os; from hrm_jax.run import huge_pages; huge_pages.start_with_them(); '
    f'print(os.getpid(), os.environ.get({huge_pages.VARIABLE!r}))'
)


@pytest.fixture
def machine(tmp_path):
    """Surroundings in which huge pages pay."""
    (tmp_path / 'enabled').write_text('always [madvise] never\n')
    (tmp_path / 'dev').mkdir()
    return {
        'environment': {}, 'setting': tmp_path / 'enabled', 'devices': tmp_path / 'dev',
        'library': ('glibc', '2.36'),
    }  # fmt: skip


def test_a_cpu_under_linux_is_faster_with_them(machine):
    assert huge_pages.pay(**machine)
    assert huge_pages.pay(**machine | {'environment': {'JAX_PLATFORMS': 'cpu'}})
    (machine['devices'] / 'nvidiactl').touch()  # a driver without a GPU
    assert huge_pages.pay(**machine)


@pytest.mark.parametrize(
    'other',
    [
        {'environment': {'GLIBC_TUNABLES': ''}},
        {'environment': {'JAX_PLATFORMS': 'cuda'}},
        {'library': ('glibc', '2.31')},
        {'library': ('', '')},
    ],
)
def test_they_are_left_alone_elsewhere(machine, other):
    assert not huge_pages.pay(**machine | other)


def test_they_are_left_alone_where_linux_gives_none_or_all(machine):
    for text in ('[always] madvise never', 'always madvise [never]'):
        machine['setting'].write_text(text)
        assert not huge_pages.pay(**machine)
    machine['setting'].unlink()
    assert not huge_pages.pay(**machine)


@pytest.mark.parametrize('name', ['nvidia0', 'kfd', 'accel3', 'vfio/0'])
def test_a_gpu_or_tpu_computes_in_its_own_memory(machine, name):
    (machine['devices'] / name).parent.mkdir(exist_ok=True)
    (machine['devices'] / name).touch()
    assert not huge_pages.pay(**machine)
    assert huge_pages.pay(**machine | {'environment': {'JAX_PLATFORMS': 'cpu'}})


def start(code, **variables):
    environment = {k: v for k, v in os.environ.items() if k != huge_pages.VARIABLE}
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
        env=environment | {'JAX_PLATFORMS': 'cpu'} | variables,
    )  # fmt: skip
    output, _ = process.communicate()
    assert process.returncode == 0
    return process.pid, output.split()


@pytest.mark.skipif(
    not huge_pages.pay({'JAX_PLATFORMS': 'cpu'}), reason='this system gives no huge pages on demand'
)
def test_a_command_starts_itself_again_once_as_the_same_process():
    pid, printed = start(PRINTS)
    assert printed == [str(pid), huge_pages.TUNABLES]


def test_what_the_user_says_stays():
    pid, printed = start(PRINTS, GLIBC_TUNABLES='glibc.malloc.perturb=0')
    assert printed == [str(pid), 'glibc.malloc.perturb=0']
