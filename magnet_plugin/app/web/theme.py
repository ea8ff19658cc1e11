"""How the page looks: Gradio's default theme with fonts of the system, and the style sheet and scripts of this package."""
import json
import typing as tp
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
ROUTE = "/magnet-app.js"        # where the server offers the scripts
STYLE = ASSETS / "app.css"
#: In the order in which they are loaded.
SCRIPTS = ("wavesurfer.min.js", "regions.min.js", "core.js", "player.js", "mask.js", "shelf.js", "editor.js", "page.js")
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")


def head() -> str:
    """Return the page's own part of the HTML head."""
    return f'<script src="{ROUTE}"></script>'


def scripts() -> str:
    """Return all scripts as one, since Gradio does not keep the order of several."""
    return "\n;\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)


def mount(part: str, *names: str) -> str:
    """Return the code that builds a part of the page, a function of the scripts, as soon as they are loaded.

    Args:
        part: name of the function.
        *names: of the events that it triggers, which Gradio looks for in this code.
    """
    return (f"(function start() {{ if (!window.magnetApp?.{part}) setTimeout(start, 20); "
            f"else magnetApp.{part}(element.firstElementChild, props, watch, trigger, {json.dumps(names)}); }})()")


def theme(gradio: tp.Any) -> tp.Any:
    """Return the theme; no font is loaded from anywhere."""
    return gradio.themes.Default(primary_hue="violet", secondary_hue="violet", neutral_hue="slate", font=SANS,
                                 font_mono=MONO)
