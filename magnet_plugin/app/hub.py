"""Upload a release folder to the Hugging Face hub, or to the server that HF_ENDPOINT names."""
from __future__ import annotations

import re
import typing as tp
from pathlib import Path

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens that may write"
#: The client of the hub and what it sends requests with, by version.
LIBRARIES = ("huggingface_hub", "httpx", "httpcore", "requests")


def check_push(repo: str) -> None:
    """Check the name of a repository, and that there is a token, before anything is exported.

    Raises:
        ValueError: the name is not OWNER/NAME, or there is no token.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo):
        raise ValueError(f"--push {repo}: give OWNER/NAME, your user name or organization on the hub and the model's name")
    from huggingface_hub import get_token
    if get_token() is None:
        raise ValueError(f"--push {repo}: there is no token for the hub; {LOGIN}")


def push(folder: Path, repo: str, private: bool) -> str:
    """Create a repository on the hub, if it does not exist, and commit the files of a release folder to it.

    Args:
        folder: release folder with a card that states a licence.
        repo: OWNER/NAME.
        private: create it for its owner only.
    Returns:
        Address of the commit.
    Raises:
        ValueError: the card states no licence, or the hub refuses.
    """
    from huggingface_hub import HfApi

    from .model_card import CARD, has_licence
    from .release import FILES
    if not has_licence((folder / CARD).read_text(encoding="utf-8")):
        raise ValueError(f"{folder / CARD} states no licence, and a model is not published without one; give --license ID, "
                         f"such as cc-by-4.0, or fill it in there. {folder} is complete and was not uploaded")
    api = HfApi(library_name="magnet-plugin")
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(FILES),
                                 commit_message="Export by the MAGNeT plugin")
    except Exception as error:
        if not type(error).__module__.startswith(LIBRARIES):
            raise
        raise ValueError(f"--push {repo}: {refusal(error, api.endpoint)}. {folder} is complete; the same command tries again"
                         ) from None
    return str(done.commit_url)


def refusal(error: tp.Any, endpoint: str) -> str:
    """Say in one line why an upload failed."""
    text = " ".join(str(error).split())[:200]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"{endpoint} does not accept the token; {LOGIN}"
    if status == 403:
        return f"the token may not write there; use the name of your own account, or {LOGIN}"
    if status is None and type(error).__module__.startswith("huggingface_hub"):
        return text
    if status is None:
        return f"{endpoint} cannot be reached ({text})"
    return f"{endpoint} answered with status {status}: {text}"
