"""`excite completion`: a script with which a shell completes commands, options and the words that they take."""

from collections.abc import Iterator
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
FISH = """# excite fish completion. To use it now:  excite completion fish | source
function __excite_words_are
    set -l typed (commandline -opc)
    test "$typed[2..]" = "$argv"
end
function __excite_begins
    set -l typed (commandline -opc)
    string match -q -- "$argv *" "$typed[2..] "
end
complete -c excite -n '__excite_words_are' -f -a '%(commands)s'
%(options)s"""


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script with which the shell completes commands, options, and the words that an option takes.

    Args:
        shell: bash, zsh or fish.

    Examples:
        excite completion bash > ~/.local/share/bash-completion/completions/excite
        excite completion zsh >> ~/.zshrc
        excite completion fish > ~/.config/fish/completions/excite.fish
    """
    if shell == "fish":
        print(fish_body(), end="")
        return
    setup = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n" if shell == "zsh" else ""
    print(HEAD.format(shell=shell) + setup + body())


def commands() -> Iterator[tuple[str, list[Option]]]:
    """Yield every command with its options: ("detect train", ...)."""
    for name, target in COMMANDS.items():
        if isinstance(target, dict):
            yield from ((f"{name} {sub}", read_options(load(where))) for sub, where in target.items())
        else:
            yield name, read_options(load(target))


def words_of(options: list[Option]) -> dict[str, str]:
    """Return the words that options take, by their spelling, where they take certain words only."""
    return {o.flag: " ".join(map(str, o.choices)) for o in options if o.choices and not o.positional}


GROUPS = {name: " ".join(target) for name, target in COMMANDS.items() if isinstance(target, dict)}
FIRST = " ".join([*COMMANDS, "help"])


def fish_body() -> str:
    """Return the same for fish: a line per option, with the words that it takes."""
    lines = [f"complete -c excite -n '__excite_words_are {name}' -f -a '{words}'" for name, words in GROUPS.items()]
    for path, known in commands():
        words = words_of(known)
        for flag in flags(known):
            takes = f" -x -a '{words[flag]}'" if flag in words else ""
            lines.append(f"complete -c excite -n '__excite_begins {path}' -l {flag[2:]}{takes}")
    return FISH % {"commands": FIRST, "options": "\n".join(lines)} + "\n"


def body() -> str:
    """Return the function that bash and zsh take (zsh through bashcompinit)."""
    options = [f'            "{name}") words="{words}" ;;' for name, words in GROUPS.items()]
    values = []
    for path, known in commands():
        options.append(f'            "{path}") words="{" ".join(flags(known))}" ;;')
        values += [f'        "{path} {flag}") words="{words}" ;;' for flag, words in words_of(known).items()]
    filled = {
        "commands": FIRST,
        "groups": "|".join(GROUPS),
        "values": "\n".join(values),
        "options": "\n".join(options),
    }
    return BODY % filled


def flags(options: list[Option]) -> list[str]:
    """Return the options of a command as they are typed; of a switch that is on, the one that turns it off."""
    named = [option for option in options if not option.positional]
    return [f"--no-{o.flag[2:]}" if o.kind is bool and o.default is True else o.flag for o in named] + list(ALWAYS)
