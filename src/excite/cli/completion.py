"""`excite completion`: a script with which a shell completes commands, options and the words that they take."""

from typing import Literal

from excite.cli import COMMANDS
from excite.cli.main import load
from excite.cli.signature import Option, read_options

ALWAYS = ("--config", "--print_config", "--help")
HEAD = "# excite {shell} completion. To use it now:  source <(excite completion {shell})\n"
BODY = """_excite() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "%(commands)s" -- "$current"))
        return
    fi
    case "$command" in
        %(groups)s) [ "$COMP_CWORD" -gt 2 ] && command="$command ${COMP_WORDS[2]}" ;;
    esac
    case "$command $previous" in
%(values)s
    esac
    if [ -z "$words" ]; then
        case "$command" in
%(options)s
        esac
        [ "${current#-}" = "$current" ] && [ "${words#-}" != "$words" ] && words=""
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    else
        COMPREPLY=($(compgen -f -- "$current"))
    fi
}
complete -o filenames -F _excite excite
"""


def completion(shell: Literal["bash", "zsh"]) -> None:
    """Print a script with which the shell completes commands, options, and the words that an option takes.

    Args:
        shell: bash or zsh.

    Examples:
        excite completion bash > ~/.local/share/bash-completion/completions/excite
        excite completion zsh >> ~/.zshrc
    """
    print(HEAD.format(shell=shell) + ("autoload -Uz bashcompinit && bashcompinit\n" if shell == "zsh" else "") + body())


def body() -> str:
    """Return the function that both shells take (zsh through bashcompinit)."""
    options, values = [], []
    for name, target in COMMANDS.items():
        commands = (
            {f"{name} {sub}": where for sub, where in target.items()} if isinstance(target, dict) else {name: target}
        )
        if isinstance(target, dict):
            options.append(f'            "{name}") words="{" ".join(target)}" ;;')
        for path, where in commands.items():
            known = read_options(load(where))
            options.append(f'            "{path}") words="{" ".join(flags(known))}" ;;')
            values += [
                f'        "{path} {option.flag}") words="{" ".join(map(str, option.choices))}" ;;'
                for option in known
                if option.choices and not option.positional
            ]
    groups = "|".join(name for name, target in COMMANDS.items() if isinstance(target, dict))
    filled = {
        "commands": " ".join([*COMMANDS, "help"]),
        "groups": groups,
        "values": "\n".join(values),
        "options": "\n".join(options),
    }
    return BODY % filled


def flags(options: list[Option]) -> list[str]:
    """Return the options of a command as they are typed; of a switch that is on, the one that turns it off."""
    named = [option for option in options if not option.positional]
    return [f"--no-{o.flag[2:]}" if o.kind is bool and o.default is True else o.flag for o in named] + list(ALWAYS)
