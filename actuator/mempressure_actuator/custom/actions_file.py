"""Reads and checks the file of custom actions, which no other user may be able to change."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mempressure.config.files import parse_yaml, read_text
from mempressure.errors import ConfigurationError
from mempressure_actuator.custom.definition import KINDS, MAX_ACTIONS, CustomAction


class _File(msgspec.Struct, forbid_unknown_fields=True):
    actions: list[CustomAction]


def load_actions(path: Path) -> tuple[CustomAction, ...]:
    """Read the file and check it, and that no other user can change it or the programs that it names.

    Raises:
        ConfigurationError: others can write to it, or a value cannot be used; the message has file, key and value.
    """
    content = _parsed(path, _text(path))
    try:
        actions = tuple(msgspec.convert(content, _File, strict=True).actions)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_misfit(path, str(error), content)) from None
    if len(actions) > MAX_ACTIONS:
        raise ConfigurationError(f"{path}: {len(actions)} actions; send {MAX_ACTIONS} at most")
    names: set[str] = set()
    for number, action in enumerate(actions):
        where = f"{path}: actions[{number}]"
        if action.name in names:
            raise ConfigurationError(f"{where}.name={action.name!r} is used already; send another name")
        names.add(action.name)
        _check(action, where)
    return actions


def require_unwritable(path: Path, what: str) -> None:
    """Check that only root and this user can change or replace a file.

    Args:
        path: the file.
        what: begins the error message.

    Raises:
        ConfigurationError: another user can; the message says how to correct that.
    """
    try:
        path.stat()  # it exists, and so do the targets of its links
        places = {place: place.lstat() for place in _steps(path)}
    except OSError as error:
        raise ConfigurationError(f"{what}{path}: {error.strerror}") from None
    for place, status in places.items():
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigurationError(
                f"{what}{place} belongs to uid {status.st_uid}, neither root nor {os.geteuid()}; chown it"
            )
        # In a sticky directory only its owner replaces a file; the mode of a link says nothing.
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_mode & 0o022 and not sticky and not stat.S_ISLNK(status.st_mode):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigurationError(f"{what}{place} can be written to by others (mode {mode}); chmod go-w {place}")


def _steps(path: Path) -> Iterator[Path]:
    """Return a file and every directory and link on its path: a user who can replace one can replace the file."""
    for place in (*reversed(path.parents), path):
        yield place
        if place.is_symlink():
            yield from _steps(place.parent / place.readlink())


def _text(path: Path) -> str:
    require_unwritable(path, "actions file ")
    try:
        return read_text(path)
    except OSError as error:
        raise ConfigurationError(f"actions file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"actions file {path} cannot be read: {error}") from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"actions file {path} is not YAML: {error}") from None


def _check(action: CustomAction, where: str) -> None:
    kinds = [kind for kind in KINDS if getattr(action, kind) is not None]
    if len(kinds) != 1:
        raise ConfigurationError(
            f"{where} ({action.name}) has {' and '.join(kinds) or 'none'} of {', '.join(KINDS)}; send exactly one"
        )
    if action.command is not None:
        program = Path(action.command[0])
        if not program.is_absolute():
            raise ConfigurationError(f"{where}.command[0]={action.command[0]!r} is not an absolute path; send one")
        if not program.is_file() or not os.access(program, os.X_OK):
            raise ConfigurationError(f"{where}.command[0]={action.command[0]!r} is not an executable file")
        require_unwritable(program, f"{where}.command[0]: ")


def _misfit(path: Path, error: str, content: Any) -> str:
    """Return what does not fit, with its value, from an error of msgspec such as "Expected ... - at `$.actions[0]`"."""
    reason, _, place = error.partition(" - at `$")
    key = place.rstrip("`").lstrip(".")
    value = content
    for name, index in re.findall(r"\.?([^.\[\]]+)|\[(\d+)\]", key):
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError, ValueError):  # a key of a mapping has no value of its own
            break
    reason = reason[:1].lower() + reason[1:]
    # Headers may hold secrets: their values are not shown.
    has_value = key and not isinstance(value, dict) and "headers" not in key
    shown = f"{key}={value!r:.80}" if has_value else key or "the file"
    return f"actions file {path}: {shown} cannot be used: {reason}"
