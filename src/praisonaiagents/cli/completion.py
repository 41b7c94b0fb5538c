"""`praisonai completion`: commands, options and session ids at the press of Tab.

What a reader would get wrong: bash takes the words of a line apart at colons, of which a URL is full. So its script hands over
the line as it was typed, and the word it wants completed may be only the end of the word that was meant.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from praisonaiagents.cli.output import json_option, print_json, wants_json

_LINE, _BREAKS = "_PRAISONAI_LINE", "_PRAISONAI_BREAKS"


class _Bash(BashComplete):
    """bash, asked for the line and not for its words. A script of before this class still gets an answer."""

    source_template = BashComplete.source_template.replace(
        "env COMP_WORDS=", f'env {_LINE}="${{COMP_LINE:0:$COMP_POINT}}" {_BREAKS}="$COMP_WORDBREAKS" COMP_WORDS='
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(_LINE)
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        _, incomplete = self.get_completion_args()
        breaks = [char for char in ":=" if char in os.environ.get(_BREAKS, "")]
        done = 1 + max((incomplete.rfind(char) for char in breaks), default=-1)
        return f"{item.type},{item.value[done:]}"


add_completion_class(_Bash)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(praisonai completion bash)"      in ~/.bashrc
    zsh:   eval "$(praisonai completion zsh)"       in ~/.zshrc
    fish:  praisonai completion fish | source       in ~/.config/fish/config.fish
    """
    from praisonaiagents.cli.main import praisonai

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    script = found(praisonai, {}, "praisonai", "_PRAISONAI_COMPLETE").source()
    if wants_json():
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
