"""The server: Gradio's page, the visitors' clips, this package's scripts, and what it refuses."""
import contextlib
import socket
import typing as tp

from .theme import ROUTE, STYLE, head, scripts, theme
from .views import CLIPS

if tp.TYPE_CHECKING:
    from .studio import Studio

LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: The browser connects to nothing but this server. Gradio compiles templates, hence the unsafe words.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
          "worker-src 'self' blob:; frame-ancestors 'self'; form-action 'self'; base-uri 'self'")
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
           "cache-control": "no-store"}
#: Parts of Gradio that this page does not use: files by path, requests to other servers, recordings, and its tools.
REFUSED = (*(f"/gradio_api/{name}" for name in (
    "file", "proxy=", "stream", "process_recording", "component_server", "deep_link", "api/", "call", "info",
    "openapi", "mcp", "vibe", "undo-vibe", "dev", "custom_component")),
    "/monitoring", "/login", "/docs", "/redoc", "/openapi.json")
BODY_SLACK = 1_000_000          # bytes of a request besides the uploaded file


class Guard:
    """Refuses what the page does not need, limits the size of requests, and adds headers to every response.

    Args:
        app: the ASGI application behind it.
        max_bytes: the largest body of a request.
    """

    def __init__(self, app: tp.Any, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: tp.Any, receive: tp.Any, send: tp.Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if scope["path"].startswith(REFUSED):
            await _answer(send, 403, "this address is not part of the app")
        elif not length.isdigit() or int(length) > self.max_bytes:
            await _answer(send, 413, f"the file is too large; the limit is {self.max_bytes / 1e6:.0f} MB")
        else:
            await self.app(scope, self._limited(receive), self._with_headers(send))

    def _limited(self, receive: tp.Any) -> tp.Any:
        """Return `receive` that ends the request when more arrives than is allowed, whatever its header said."""
        taken = 0

        async def limited() -> tp.Any:
            nonlocal taken
            event = await receive()
            taken += len(event.get("body", b""))
            return event if taken <= self.max_bytes else {"type": "http.disconnect"}

        return limited

    def _with_headers(self, send: tp.Any) -> tp.Any:
        async def headed(event: tp.Any) -> None:
            if event["type"] == "http.response.start":
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                event["headers"] = [*((name, value) for name, value in event["headers"] if name.lower() not in own),
                                    *own.items()]
            await send(event)

        return headed


async def _answer(send: tp.Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *((k.encode(), v.encode()) for k, v in HEADERS.items())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def create_app(studio: "Studio", host: str = LOOPBACK[0], port: int = 7860) -> tp.Any:
    """Return the ASGI application for a studio."""
    from .blocks import Page
    page = Page(studio)                         # Sets the environment before anything imports Gradio.
    import fastapi
    from fastapi.responses import FileResponse, PlainTextResponse, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def clip(token: str, name: str) -> tp.Any:
        path = studio.visitors.file(token, name)
        return PlainTextResponse("there is no such clip", 404) if path is None else FileResponse(path)

    app.add_api_route(f"{CLIPS}/{{token}}/{{name}}", clip, methods=["GET", "HEAD"], response_model=None)
    script = scripts()
    app.add_api_route(ROUTE, lambda: Response(script, media_type="text/javascript"), methods=["GET"], response_model=None)
    page.gr.mount_gradio_app(app, page.blocks, path="/", server_name=host, server_port=port, footer_links=[],
                             run_history=False, show_error=True, max_file_size=studio.limits.max_bytes, ssr_mode=False,
                             enable_monitoring=False, mcp_server=False, pwa=False, theme=theme(page.gr),
                             css_paths=STYLE, head=head())
    if host in LOOPBACK:                        # A page elsewhere cannot reach the app by a name that it points here.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.add_middleware(Guard, max_bytes=studio.limits.max_bytes + BODY_SLACK)
    return app


def bind(host: str, port: int) -> socket.socket:
    """Take the address, before anything slow is done.

    Raises:
        ValueError: it is in use, or does not belong to this machine.
    """
    if not host:                # It would stand for all addresses of the machine.
        raise ValueError("--host must not be empty; give 127.0.0.1, or 0.0.0.0 for all addresses of this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(64)
    except (OSError, OverflowError) as error:
        server.close()
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--host {host} --port {port}: cannot listen there ({reason}); give another --port, or 0 for any "
                         "free one") from error
    return server


def address(server: socket.socket, host: str) -> str:
    """Return the address to open in a browser."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{server.getsockname()[1]}"


@contextlib.contextmanager
def running(studio: "Studio", server: socket.socket, host: str) -> tp.Iterator[tp.Any]:
    """Yield a uvicorn server for the studio, whose `run(sockets=[...])` serves until it is interrupted."""
    import uvicorn
    app = create_app(studio, host, server.getsockname()[1])
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, timeout_keep_alive=30,
                            limit_concurrency=500, server_header=False)
    try:
        yield uvicorn.Server(config)
    finally:
        studio.close()


def serve(studio: "Studio", server: socket.socket, host: str) -> None:
    """Serve until the process is interrupted."""
    with running(studio, server, host) as uvicorn_server:
        uvicorn_server.run(sockets=[server])
