"""`magnet completion`: a script that completes commands, options and their values in a shell."""
from __future__ import annotations

import argparse
import typing as tp

SHELLS = ("bash", "zsh")
SCRIPT = """\
# Completion of the magnet command. In {shell}: eval "$(magnet completion {shell})"
{zsh}_magnet() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" path="" word="" words="" i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    case "$path $word" in
      {commands}) path="$path $word" ;;
    esac
  done
  case "$path:$prev" in
{values}
    *) case "$path" in
{words}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _magnet magnet
"""


def add_parser(commands: tp.Any, common: argparse.ArgumentParser) -> None:
    """Add `magnet completion`."""
    one = commands.add_parser("completion", parents=[common], help="print a script for completion in bash or zsh",
                              description="Print a script that completes commands, options and their values. To use it, add "
                                          'eval "$(magnet completion bash)" to ~/.bashrc, or the same for zsh to ~/.zshrc.')
    one.add_argument("shell", choices=SHELLS, help="your shell")
    one.set_defaults(run=run, commands=commands)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    print(script(args.commands, args.shell), end="")
    return 0


def script(commands: argparse._SubParsersAction, shell: str) -> str:
    """Return the script for all commands of `magnet`."""
    parsers = dict(_parsers(commands, ""))
    paths = [f'"{path}"' for path in parsers]
    words, values = [f'      "") words="{" ".join(commands.choices)}" ;;'], []
    for path, one in parsers.items():
        options = [option for action in one._actions for option in action.option_strings if option.startswith("--")]
        below = [name.rpartition(" ")[2] for name in parsers if name.rpartition(" ")[0] == path]
        words.append(f'      "{path}") words="{" ".join([*below, *options])}" ;;')
        for action in one._actions:
            if action.choices and not isinstance(action, argparse._SubParsersAction):
                places = [f'"{path}:{option}"' for option in action.option_strings or [path.rpartition(" ")[2]]]
                values.append(f'    {"|".join(places)}) words="{" ".join(map(str, action.choices))}" ;;')
    zsh = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return SCRIPT.format(shell=shell, zsh=zsh, commands="|".join(paths), words="\n".join(words), values="\n".join(values))


def _parsers(commands: argparse._SubParsersAction, path: str) -> tp.Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser of each command and subcommand with its path, such as ` data folk`."""
    for name, one in commands.choices.items():
        yield f"{path} {name}", one
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from _parsers(action, f"{path} {name}")
