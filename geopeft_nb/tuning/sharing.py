"""Share adapters on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

#: All files that a saved adapter can consist of; nothing else is sent or fetched.
FILES = (
    "adapter.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "backbone.safetensors",
    "decoder.safetensors",
    "model_card.md",
)


def local_folder(folder: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a saved adapter, fetched from the hub if it is a repository's name.

    Args:
        folder: A folder; or ``"owner/name"`` or ``"hub:owner/name"``.
        revision: Branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: There is no such folder, and no such repository can be reached.
    """
    path, repository = Path(folder).expanduser(), str(folder).removeprefix("hub:")
    if path.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # offline, no such repository, no access: each its own kind
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r} here, and https://huggingface.co/{repository} did "
            f"not give an adapter: {reason}."
        ) from error


def push_adapter(
    folder: str | os.PathLike[str], repo_id: str, private: bool = True, token: str | None = None
) -> str:
    """Send a saved adapter to the Hugging Face hub, in one commit.

    Args:
        folder: Written by `save_adapter`.
        repo_id: Repository, ``"owner/name"``; made if it is not there.
        private: Whether a new repository can only be seen by you.
        token: Access token; None takes the one that `hf auth login` stored.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: The folder holds no adapter.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    source = Path(folder).expanduser()
    if not (source / "adapter.json").is_file():
        raise FileNotFoundError(f"{source} holds no adapter.json; save_adapter writes one.")
    about = json.loads((source / "adapter.json").read_text())
    header = f"---\nlibrary_name: geopeft_nb\ntags:\n- remote-sensing\n- {about['method']}\n---\n\n"
    readme = header + (source / "model_card.md").read_text()
    files = [CommitOperationAdd("README.md", readme.encode())]
    files += [CommitOperationAdd(n, source / n) for n in FILES if (source / n).is_file()]
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.create_commit(repo_id, files, commit_message=f"Add {about['method']} adapter")
    return str(commit.commit_url)
