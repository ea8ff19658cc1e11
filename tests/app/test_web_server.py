"""The server: what it offers, and what it refuses."""
import importlib.util
import typing as tp

import pytest

from magnet_plugin.app.web import gradio_import, server, theme
from magnet_plugin.app.web.limits import Limits
from magnet_plugin.app.web.studio import Studio
from magnet_plugin.cli import main

from ..helpers.toy_magnets import toy_magnet


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> tp.Iterator[Studio]:
    made = Studio(toy_magnet(), Limits(max_upload_mb=0.01), tmp_path_factory.mktemp("app") / "files")
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> tp.Iterator[tp.Any]:
    testclient = pytest.importorskip("fastapi.testclient", reason="Gradio is not installed")
    pytest.importorskip("gradio")
    with testclient.TestClient(server.create_app(studio), base_url="http://127.0.0.1") as made:
        yield made


def test_the_page_loads_nothing_from_elsewhere(client: tp.Any) -> None:
    page = client.get("/")
    assert page.status_code == 200 and theme.ROUTE in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "fonts.googleapis" not in client.get("/theme.css").text
    script = client.get(theme.ROUTE)
    assert script.headers["content-type"].startswith("text/javascript")
    for name in ("WaveSurfer", "magnetApp", "stepsView", "app.editor", "app.shelf"):
        assert name in script.text, name


def test_files_of_others_and_of_the_machine_are_not_offered(client: tp.Any, studio: Studio) -> None:
    one, other = studio.visitors.open(), studio.visitors.open()
    (one.folder / "clip-0001.wav").write_bytes(b"sound")
    assert client.get(f"/clips/{one.token}/clip-0001.wav").content == b"sound"
    secret = studio.folder / "secret.txt"
    secret.write_text("secret")
    for path in (f"/clips/{other.token}/clip-0001.wav", "/clips/x/clip-0001.wav", f"/clips/{one.token}/",
                 f"/clips/{one.token}/..%2f..%2fsecret.txt", f"/clips/{one.token}/%2e%2e/%2e%2e/secret.txt", "/clips/",
                 f"/gradio_api/file={secret}", "/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:1/x",
                 f"/gradio_api/file/{secret}", "/gradio_api/proxy=http://127.0.0.1:1/x", "/gradio_api/info",
                 "/static/..%2f..%2f..%2fpackage.json", "/assets/..%2f..%2f..%2fpackage.json"):
        answer = client.get(path)
        assert answer.status_code in (400, 403, 404, 405), (path, answer.status_code)
        assert "secret" not in answer.text and "root:" not in answer.text, path


def test_large_uploads_and_other_hosts_are_refused(client: tp.Any, studio: Studio) -> None:
    small = client.post("/gradio_api/upload", files={"files": ("a.wav", b"x" * 5000)})
    assert small.status_code == 200 and str(studio.uploads) in small.text
    large = client.post("/gradio_api/upload", files={"files": ("a.wav", b"x" * 20_000)})
    assert large.status_code == 413
    huge = client.post("/gradio_api/queue/join", content=b"x" * 1_200_000, headers={"content-type": "application/json"})
    assert huge.status_code == 413 and "too large" in huge.text
    malformed = client.post("/gradio_api/queue/join", content=b"{", headers={"content-type": "application/json"})
    assert malformed.status_code == 422
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_port_in_use_is_named_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    with server.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert server.address(taken, "127.0.0.1") == server.address(taken, "0.0.0.0") == f"http://127.0.0.1:{port}"
        assert main.main(["app", "--port", str(port)]) == 2
        assert f"--port {port}: cannot listen there" in capsys.readouterr().err
    for args, said in ((["--port", "70000"], "--port 70000"), (["--max-seconds", "0"], "--max-seconds 0 must be above 0"),
                       (["--host", "no.such.host.invalid", "--port", "0"], "cannot listen there"),
                       (["--model", "./none"], "no such file or folder")):
        assert main.main(["app", *args]) == 2
        assert said in capsys.readouterr().err


def test_missing_gradio_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                                                    ) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest))
    assert main.main(["app"]) == 2
    captured = capsys.readouterr().err
    assert gradio_import.INSTALL in captured and captured.count("\n") == 1
