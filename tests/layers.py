"""The layers of the house, as a table: what stands where, what for, and what may import what.

Plain values, for the test that holds the layers (layers_test.py) and for their picture
(draw_layers.py).
"""

# Rows from the lowest to the highest. A module imports modules of lower rows, those before it in
# its own row, and the other files of its folder (without cycles). Name -> purpose; names are
# relative to hrm_jax, and 'folder/*' holds all files of a folder.
LAYERS: tuple[dict[str, str], ...] = (
    {
        'errors': 'the errors that a user can correct',
        'locks': 'folders with one owner at a time',
        'files': 'paths as people give them, and the one atomic writer',
        'types': 'the pytrees that flow through the program',
    },
    {'config/*': 'every setting, with its default and its checks'},
    {
        'tasks/*': 'what each task is: symbols, texts, rules, symmetries',
        'data/*': 'data sets on disk, augmentation, sampling, batches',
    },
    {
        'partitioning': 'the device mesh and who holds what',
        'act': 'adaptive computation time: refill, halt, targets',
        'losses': 'losses of one ACT step',
        'metrics': 'from sums to the numbers that are logged',
        'muon': 'Muon: orthogonalized momentum for the matrices',
        'optim': 'optimizers of the weights and of the puzzle table',
    },
    {'model/*': 'the recursive core and its parts'},
    {
        'train_state': 'the state of a run, placed on the mesh',
        'anchors': 'training steps that start from a corrupted answer',
        'pool': 'training of candidate sets: puzzles in all stages of a search',
        'curriculum': 'cycles that training begins with',
        'train_step': 'one train step, or several in one call',
        'eval_step': 'evaluation of one batch',
    },
    {'checkpoint/*': 'what is saved, how it is read, what may be continued'},
    {'interop/*': 'checkpoints of others, and ours for others'},
    {'run/*': 'files, clocks, signals and processes of a run'},
    {'scoring/*': 'scores of saved predictions: ARC, texts'},
    {'inference/*': 'a saved model answers puzzles'},
    {'evaluate': 'evaluation of a split', 'eval_checkpoint': 'of a saved model'},
    {'train': 'the training loop', 'fitting': 'from arrays to a model'},
    {'visualize/*': 'pages and pictures of data and of the reasoning'},
    {'adaptation/*': 'new ARC tasks in, a submission out'},
    {
        'cli/*': 'the commands',
        'main': 'the command that trains and evaluates',
        '__main__': 'all commands behind one name',
    },
)
# Imports nothing of the project but itself, and anyone may import it.
FREE = {'lisp/*': 'the Lisp of the Lisp data sets'}

# The one module that may leave the package, for data that a run builds itself.
BUILDS_DATA = ('run/build_data', 'data_builders')

# The part of the loader that builders share: what a data set is on disk.
DISK = (
    'data/augment', 'data/names', 'data/metadata', 'data/mapped', 'data/puzzles', 'data/npy_folder',
    'data/blocks', 'data/building', 'data/records', 'data/text', 'data/hints',
)  # fmt: skip
# What data_builders may import of hrm_jax.
FOR_BUILDERS = ('errors', 'locks', 'files', 'tasks/*', *DISK, *FREE)

# Packages that the core runs without, or that cost seconds to import.
HEAVY = {
    'array_record', 'clu', 'grain', 'huggingface_hub', 'matplotlib', 'ml_collections',
    'tensorboardX', 'tensorflow', 'tensorflow_datasets', 'torch', 'wandb',
}  # fmt: skip
# Modules that may import such a package at their top.
HEAVY_ALLOWED = {
    'data_builders/*': {'tensorflow_datasets'},
    'hrm_jax/data/grain_source': {'grain'},
    'hrm_jax/metrics': {'clu'},
    'hrm_jax/run/summary': {'clu'},
}
# The only modules of hrm_jax that import a package at all, within a function or not.
PLACES = {
    'clu': {'metrics', 'run/summary'},
    'grain': {'data/grain_source'},
    'huggingface_hub': {'interop/hub'},
    'ml_collections': {'cli/common', 'config/sections'},
    'orbax': {
        'checkpoint/digest_item',
        'checkpoint/layout',
        'checkpoint/retention',
        'checkpoint/saver',
        'checkpoint/store',
        'checkpoint/weights_only',
        'run/distributed',
    },
    'tensorboardX': {'run/trackers'},
    'tensorflow': set(),
    'torch': set(),
    'tqdm': {'run/progress'},
    'wandb': {'run/trackers'},
}
# What must run on a machine without any of HEAVY, whatever it imports in turn.
CORE = tuple(
    f'hrm_jax/{name}'
    for name in (
        'errors', 'locks', 'files', 'types', 'config/*', 'data/*', 'tasks/*', 'partitioning', 'act',
        'losses', 'muon', 'optim', 'model/*', 'train_state', 'anchors', 'pool', 'curriculum',
        'train_step', 'eval_step', 'checkpoint/*', 'inference/*', 'scoring/*', 'interop/*', *FREE,
    )
)  # fmt: skip
# Builders, configurations, the loader's inner part and --help work without an accelerator's
# packages.
WITHOUT_JAX = (
    'data_builders/*', 'configs/*', 'hrm_jax',
    *(f'hrm_jax/{name}' for name in ('errors', 'locks', 'files', 'config/*', 'tasks/*', *DISK,
                                     *FREE, 'cli/*', 'main', '__main__')),
)  # fmt: skip
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}

# The only modules outside hrm_jax/model that name the Flax module: one draws its first weights,
# the other hands it out. All others call model/hrm.py's functions, the only callers of HRM.apply.
NAME_THE_MODULE = ('train_state', 'interop/transformers_style')
