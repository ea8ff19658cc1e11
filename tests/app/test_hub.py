"""Uploads to the hub, to a stand-in on the loopback."""
import typing as tp
from pathlib import Path

import pytest

from magnet_plugin.app import hub

from ..helpers.hub import TOKEN, Hub, running_hub


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> tp.Iterator[Hub]:
    """A hub, and a user with a token for it."""
    import huggingface_hub.constants
    with running_hub() as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", running.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("state_dict.bin", "weights"), ("state_dict.safetensors", "weights again"),
                       ("README.md", "---\nlicense: cc-by-4.0\n---\n# mine\n"), ("notes.txt", "private")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_files_of_a_release_are_committed_and_no_others(server: Hub, folder: Path) -> None:
    hub.check_push("me/mine")
    address = hub.push(folder, "me/mine", private=True)
    assert address == f"{server.address}/me/mine/commit/0a1b2c" and server.messages == ["Export by the MAGNeT plugin"]
    assert set(server.commits["me/mine"]) == {"state_dict.bin", "state_dict.safetensors", "README.md"}
    assert server.commits["me/mine"]["state_dict.bin"] == b"weights"
    [created] = server.repositories
    assert created["name"] == "mine" and created["organization"] == "me"
    assert created.get("private") or created.get("visibility") == "private"
    hub.push(folder, "me/public", private=False)
    assert not server.repositories[1].get("private") and server.repositories[1].get("visibility") != "private"


def test_without_a_licence_nothing_is_published(server: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: FILL-IN\n---\n")
    with pytest.raises(ValueError, match="states no licence.*--license ID"):
        hub.push(folder, "me/mine", private=False)
    assert not server.repositories


def test_a_name_and_a_token_are_needed_before_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="no token for the hub; log in with `hf auth login`, or set HF_TOKEN"):
        hub.check_push("me/mine")
    for name in ("mine", "me/mine/x", "../mine", "me/"):
        with pytest.raises(ValueError, match="give OWNER/NAME"):
            hub.check_push(name)


@pytest.mark.parametrize("status, words", [(401, "does not accept the token; log in"), (403, "may not write there"),
                                           (418, "answered with status 418")])
def test_a_refusal_is_one_line_with_the_remedy(server: Hub, folder: Path, status: int, words: str) -> None:
    server.status = status
    with pytest.raises(ValueError, match=words) as error:
        hub.push(folder, "me/mine", private=False)
    assert "is complete; the same command tries again" in str(error.value) and "\n" not in str(error.value)


def test_an_unreachable_hub_is_one_line(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    import huggingface_hub.constants
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    with pytest.raises(ValueError, match="cannot be reached"):
        hub.push(folder, "me/mine", private=False)
