"""Parts of the documentation site: pages that are made from other files, links to what is outside of docs/, and doctests.

`magnet COMMAND --help`, the changelog and the cards of the bundled models become pages of the site. Links to files of the
repository that have no page are shown as plain text, because the site may be read without the repository.
"""
from __future__ import annotations

import argparse
import os
import posixpath
import re
import typing as tp
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
BUNDLED = "magnet_plugin/models/bundled"
#: Files outside of docs/ that have a page, by their path in the repository.
PAGES = {"CHANGELOG.md": "changes.md", "README.md": "index.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def cards() -> list[Path]:
    """Return the model cards of the bundled models."""
    return sorted((ROOT / BUNDLED).glob("*/README.md"))


def page_of(path: str) -> str | None:
    """Return the page that a file of the repository became; None if it has none."""
    if path.startswith(f"{BUNDLED}/") and path.endswith("/README.md"):
        return f"models/{path.split('/')[-2]}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path)


def commands_page() -> str:
    """Write the help of all commands as one page."""
    os.environ["COLUMNS"] = "80"
    from magnet_plugin.cli.main import parser
    blocks = ["# Commands", "The help texts of `magnet`, as `magnet COMMAND --help` prints them."]
    for name, one in subparsers(parser()):
        blocks += [f"{'##' if ' ' not in name else '###'} magnet {name}", f"```text\n{one.format_help().rstrip()}\n```"]
    return "\n\n".join(blocks) + "\n"


def subparsers(parser: argparse.ArgumentParser, before: str = "") -> tp.Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield all commands of a parser by name, and those below each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield f"{before}{name}", one
                yield from subparsers(one, f"{before}{name} ")


def models_page() -> str:
    """List the cards of the bundled models."""
    rows = [f"- [{card.parent.name}]({card.parent.name}.md)" for card in cards()]
    return "# Bundled models\n\nSmall models that come with the package, trained from scratch. Each card is written by a " \
           "command, from the records of its training and of its evaluation.\n\n" + "\n".join(rows) + "\n"


def on_files(files: tp.Any, config: tp.Any) -> tp.Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File
    pages = {"commands.md": commands_page(), "models/index.md": models_page(),
             **{page: (ROOT / path).read_text() for path, page in PAGES.items() if page != "index.md"},
             **{f"models/{card.parent.name}.md": card.read_text() for card in cards()}}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: tp.Any, config: tp.Any, files: tp.Any) -> str:
    """Lead links to files outside of docs/ to their pages, or show them as text."""
    name = page.file.src_uri
    source = next((path for path, target in PAGES.items() if target == name and name != "index.md"), f"docs/{name}")
    if name.startswith("models/") and name != "models/index.md":
        source = f"{BUNDLED}/{Path(name).stem}/README.md"

    def lead(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or re.match(r"\w+:", link):
            return match[0]
        target = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if name == "models/index.md":
            target = f"models/{path}"
        if target is None:
            return text
        relative = posixpath.relpath(target, posixpath.dirname(name) or ".")
        return f"{image}[{text}]({relative}{'#' if anchor else ''}{anchor})"

    parts = re.split(r"(```.*?```)", markdown, flags=re.S)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)


class Docstrings(griffe.Extension):
    """Shows doctests as code, and lets a section follow the one before it without an empty line."""

    def on_object(self, *, obj: griffe.Object, **kwargs: tp.Any) -> None:
        """Rewrite the docstring of an object, if it has one."""
        if obj.docstring is not None:
            text = re.sub(r"^( *)(>>> .*(?:\n *\S.*)*)", r"\1```pycon\n\1\2\n\1```", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"\n( *(?:Args|Attributes|Returns|Yields|Raises):\n)", r"\n\n\1", text)
