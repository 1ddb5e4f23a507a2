"""Print a script that completes this command in a shell.

For bash:  source <(mempressure completion bash)
For zsh:   source <(mempressure completion zsh)
"""

import argparse
import sys

SHELLS = ("bash", "zsh")

EPILOG = """\
exit status:
  0  printed
  2  the arguments cannot be used
"""

_SCRIPT = """\
_mempressure() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            -*) ;;
            *) if [[ -z $command ]]; then command=${{COMP_WORDS[i]}}; fi ;;
        esac
    done
    case $command in
        "") words="{commands}" ;;
{cases}
    esac
    case $previous in
        {files}) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -F _mempressure mempressure
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this subcommand's arguments."""
    parser.add_argument("shell", metavar="bash|zsh", choices=SHELLS, help="the shell that is to read it")


def run(options: argparse.Namespace) -> int:
    """Print the script; return the exit status."""
    if options.shell == "zsh":  # which reads bash's own way of completing
        sys.stdout.write("autoload -U +X bashcompinit && bashcompinit\n")
    sys.stdout.write(script(options.parser))
    return 0


def script(parser: argparse.ArgumentParser) -> str:
    """Return bash's script for a parser with subcommands."""
    commands = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    cases: list[str] = []
    files: set[str] = set()
    for name, command in commands.items():
        words: list[str] = []
        for action in command._actions:  # noqa: SLF001 -- argparse tells nobody else what it takes
            words += action.option_strings or [str(choice) for choice in action.choices or ()]
            files.update(option for option in action.option_strings if action.metavar == "PATH")
        cases.append(f'        {name}) words="{" ".join(words)}" ;;')
    flags = [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001 -- as above
    return _SCRIPT.format(
        commands=" ".join((*commands, *flags)), cases="\n".join(cases), files="|".join(sorted(files)) or "--"
    )
