"""`magnet app`: a page for the browser."""
from __future__ import annotations

import argparse
import typing as tp

from . import model_options
from .output import say

DESCRIPTION = """\
Start a web page on this machine that generates and edits music: several candidates side by side, a waveform on which regions
are marked, the mask before it runs, and the decoding steps afterwards. Nothing is sent anywhere. Needs Gradio: pip install
'magnet-plugin[app]'."""


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet app`."""
    one = commands.add_parser("app", parents=[common], help="start a web page that generates and edits music",
                              description=DESCRIPTION)
    model_options.add_name_and_device(one)
    one.add_argument("--host", default="127.0.0.1", help="address to listen on; any other than 127.0.0.1 lets other "
                     "machines use the app, without a password (default: %(default)s)")
    one.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes any free one (default: %(default)s)")
    one.add_argument("--max-seconds", type=float, default=120.0, metavar="SECONDS",
                     help="longest clip that may be generated or edited (default: %(default)g)")
    one.add_argument("--max-upload-mb", type=float, default=50.0, metavar="MB",
                     help="largest file that may be uploaded, in megabytes (default: %(default)g)")
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    from ..app.web.gradio_import import require_gradio
    from ..app.web.limits import Limits
    require_gradio()
    for option, value in (("--max-seconds", args.max_seconds), ("--max-upload-mb", args.max_upload_mb)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{option} {value:g} must be above 0")
    args.model = args.model or model_options.MODEL
    model_options.check_exists(args.model)
    from ..app.web import server
    with server.bind(args.host, args.port) as listening:
        model = model_options.load_model(args.model, args.device)
        from ..app.web.studio import Studio
        studio = Studio(model, Limits(max_seconds=args.max_seconds, max_upload_mb=args.max_upload_mb))
        if args.host not in server.LOOPBACK:
            say(f"magnet: warning: the app listens on {args.host} without a password; everybody who can reach this address "
                "can use this machine to generate, and upload files to it")
        print(f"Open {server.address(listening, args.host)} in a browser. Ctrl+C ends the app.", flush=True)
        server.serve(studio, listening, args.host)
    return 0
