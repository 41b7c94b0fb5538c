"""`praisonai completion`: commands, options and session ids at the press of Tab."""

from __future__ import annotations

import click

from praisonaiagents.cli.output import json_option, print_json, wants_json


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
    from click.shell_completion import get_completion_class

    from praisonaiagents.cli.main import praisonai

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    script = found(praisonai, {}, "praisonai", "_PRAISONAI_COMPLETE").source()
    if wants_json():
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
