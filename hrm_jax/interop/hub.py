"""Models on the Hugging Face hub: files down, folders up."""

import os
import re

from hrm_jax.interop.errors import CheckpointFormatError

_HUB_ID = re.compile(r'^[A-Za-z0-9][\w.-]*/[\w.-]+$')
# Weights and configurations in the formats that are read here; no optimizer states, no code.
_PATTERNS = [
    'config.json', 'all_config.yaml', '*.safetensors', '*.safetensors.index.json', 'step_*',
    'checkpoint*', '*.pt', '*.pth',
]  # fmt: skip


def local_path(path_or_hub_id: str | os.PathLike, revision: str | None = None) -> str:
    """Returns the path as it is, or the folder of the downloaded files of a hub id.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` such as
        ``sapientinc/HRM-checkpoint-sudoku-extreme``.
      revision: branch, tag or commit on the hub.

    Raises:
      FileNotFoundError: it is neither a path nor the shape of a hub id.
      CheckpointFormatError: the hub does not answer, or has no such model.
    """
    path = os.fspath(path_or_hub_id)
    if os.path.exists(path):
        return path
    if not _HUB_ID.match(path):
        raise FileNotFoundError(f'{path}: no such file or folder, nor a hub id (owner/name).')
    advice = (
        f'where there is a network, run `hf download {path} --local-dir DIR`, copy DIR here and '
        f'give DIR in place of the id'
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointFormatError(
            f'{path} is no local path, and the hub needs huggingface_hub installed; or {advice}.'
        ) from error
    try:
        return huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=_PATTERNS)
    # huggingface_hub passes on the errors of whatever HTTP library it uses.
    except Exception as error:
        reason = type(error).__name__
        if reason in ('RepositoryNotFoundError', 'RevisionNotFoundError', 'GatedRepoError'):
            raise CheckpointFormatError(
                f'the hub does not give out {path} ({reason}): check the name, the revision and '
                f'your login (`hf auth login`).'
            ) from error
        raise CheckpointFormatError(
            f'{path} is no local path, and the Hugging Face hub could not be reached ({reason}): '
            f'{advice}.'
        ) from error


def upload_folder(folder: str | os.PathLike, repo_id: str, **options) -> str:
    """Creates the repository if need be and uploads a folder; returns the address of the commit.

    Args:
      folder: what ``save_pretrained`` wrote.
      repo_id: ``owner/name``.
      **options: ``private`` for a new repository; ``token``, ``commit_message`` and whatever
        else ``HfApi.upload_folder`` takes.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi(token=options.pop('token', None))
    api.create_repo(repo_id, private=options.pop('private', None), exist_ok=True)
    options.setdefault('commit_message', 'Upload HRM')
    return str(api.upload_folder(folder_path=os.fspath(folder), repo_id=repo_id, **options))
