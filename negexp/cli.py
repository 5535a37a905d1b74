"""`negexp COMMAND key=value ...`: one Hydra application per command, behind a dispatcher that starts fast.

Exit codes: 0 done, 2 wrong input (one line), 1 a defect of negexp (traceback), 130 / 143 stopped by SIGINT / SIGTERM.
A closed pipe, as in `negexp train | head`, changes none of them. Hydra is imported only when a command needs it, torch
only when a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from negexp.command import check_name, names, purpose
from negexp.errors import InputError
from negexp.streams import OutputError, tolerate_closed_pipes


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    with tolerate_closed_pipes():
        try:
            code = _dispatch(sys.argv[1:] if argv is None else argv)
            print(end="", flush=True)
            return code
        except OutputError as error:
            return _refuse(f"standard output cannot be written ({error})")


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if "--version" in arguments:
        from negexp import __version__

        print(f"negexp {__version__}")
        return 0
    if arguments[0] in ("-sc", "--shell-completion"):
        return _guarded(lambda: _complete(arguments))
    command, rest = arguments[0], arguments[1:]
    try:
        check_name(command)
    except InputError as error:
        return _refuse(str(error))
    return _guarded(lambda: _run(command, rest))


def _run(command: str, arguments: list[str]) -> None:
    from negexp.application import run_command

    run_command(command, arguments)


def _complete(arguments: list[str]) -> None:
    """Install shell completion, or answer a shell: first with the commands, then with Hydra's groups and keys."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if not arguments[1:] or not arguments[1].startswith("query="):
        _run(names()[0], arguments)  # the same script serves every command
    elif len(words) > 2 or (len(words) == 2 and line.endswith(" ")):
        if words[1] in names():
            os.environ["COMP_LINE"] = line.replace(words[1], "", 1).replace("  ", " ", 1)
            _run(words[1], arguments)
    else:
        print(" ".join(names()))


def _guarded(run: Callable[[], None]) -> int:
    """Call `run`; a wrong input becomes one line and exit code 2."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from negexp.errors import JobsFailedError
    from negexp.signals import Stopped, stops_at_once
    from negexp.world import LostProcessError, is_silent

    try:
        with stops_at_once():
            run()
    except InputError as error:
        return 2 if is_silent(error) else _refuse(str(error))
    except LostProcessError as error:
        _refuse(str(error))
        return 1
    except JobsFailedError as error:
        _refuse(str(error))
        return error.exit_code
    except (HydraException, OmegaConfBaseException) as error:
        from negexp.application.explain import explain

        return _refuse(explain(error))
    except Stopped as stop:
        print(f"negexp: stopped by {stop.name}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("negexp: interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if stop.code:  # else it is Hydra's, after --help
            raise
    return 0


def _refuse(message: str) -> int:
    print(f"negexp: {message}", file=sys.stderr)
    return 2


def _usage() -> str:
    lines = ["usage: negexp COMMAND [key=value ...]", ""]
    lines += [f"  {name:<10} {purpose(name)}" for name in names()]
    lines += [
        "",
        "negexp COMMAND --help lists a command's groups and keys, --cfg job prints its configuration,",
        "-m sweeps over comma-separated values, -sc install=bash installs shell completion.",
    ]
    return "\n".join(lines)
