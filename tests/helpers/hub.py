"""A stand-in for the Hugging Face hub on the loopback: it records repositories and commits."""
import base64
import contextlib
import json
import threading
import typing as tp
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_token_of_the_tests"


class Hub(ThreadingHTTPServer):
    """Accepts one token.

    Attributes:
        repositories: bodies of the requests that create a repository.
        commits: repository -> file -> content, of its last commit.
        status: answer this status to every request instead.
    """
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: list[dict] = []
        self.commits: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.status: tp.Optional[int] = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers what `create_repo` and `upload_folder` ask."""
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.status or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(self.server.status or 401, {"error": "refused"})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.repositories.append(wanted)
            self.answer(200, {"url": f"{self.server.address}/{wanted['organization']}/{wanted['name']}"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            self.commit(self.path.split("/api/models/")[1].split("/commit/")[0], body)
        else:
            self.answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self.answer(404, {"error": self.path})

    def commit(self, repo: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "header":
                self.server.messages.append(line["value"]["summary"])
        self.server.commits[repo] = files
        self.answer(200, {"commitUrl": f"{self.server.address}/{repo}/commit/0a1b2c", "commitOid": "0a1b2c"})

    def answer(self, status: int, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: tp.Any) -> None:
        pass


@contextlib.contextmanager
def running_hub() -> tp.Iterator[Hub]:
    """Run the server in a thread."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
