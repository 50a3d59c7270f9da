"""``swatsim completion``: what makes a shell complete swatsim's words."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from swatsim.cli.lazy import Choice
from swatsim.cli.main import COMPLETE, cli

SHELLS = ("bash", "zsh", "fish")
#: What bash is told besides: behind "rows=" comes a value, and no blank.
BASH = """\
_swatsim_words() {
    _swatsim_completion "$@"
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o nosort -F _swatsim_words swatsim
"""


@click.command()
@click.argument("shell", type=Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete swatsim's words.

    Verbs, options, presets, parameters, networks, policies, and paths. Put one of these where your
    shell starts:

    \b
    ~/.bashrc                    eval "$(swatsim completion bash)"
    ~/.zshrc, after compinit     eval "$(swatsim completion zsh)"
    ~/.config/fish/config.fish   swatsim completion fish | source

    Bash has to be 4.4 or newer.
    """  # noqa: D301  (click's mark of lines that stay as they are, which is one character)
    found = get_completion_class(shell)
    assert found is not None, shell
    # not the class's own: bash's would start a bash to ask for its version
    click.echo(ShellComplete.source(found(cli, {}, "swatsim", COMPLETE)))
    if shell == "bash":
        click.echo(BASH, nl=False)
