"""Upload an exported folder to the Hugging Face hub. The token is huggingface_hub's own and is never written."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi

from negexp import __version__
from negexp.errors import InputError


def upload(folder: Path, name: str, private: bool) -> str:
    """Make the repository `name` unless it exists, commit all files of the folder to it, and return its address.

    Raises
    ------
    InputError
        When the hub refuses or cannot be reached. The folder stays, complete.
    """
    api = HfApi(library_name="negexp", library_version=__version__)
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by negexp")
    except Exception as error:  # the hub's client and its HTTP library raise errors of many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"hub={name}: cannot be uploaded ({reason}); {folder} is complete, so upload it with: hf upload {name} "
            f"{folder}"
        ) from None
    return str(address)
