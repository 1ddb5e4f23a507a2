"""The configuration file, YAML or JSON: read into the text of each setting."""

from collections.abc import Collection
from typing import Any

from mempressure.config.files import parse_json, parse_yaml, read_text
from mempressure.errors import ConfigurationError


def read_texts(path: str, *, keys: Collection[str]) -> dict[str, str]:
    """Return the text of each setting in a file, by key, as an environment variable would hold it.

    Args:
        path: of the file; a name that ends in .json allows no YAML.
        keys: those that may be in it.

    Raises:
        ConfigurationError: the file cannot be read, is neither JSON nor YAML, or has another key or a nested value.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigurationError(f"MEMPRESSURE_CONFIG={path}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    content = _parsed(path, text)
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds a {type(content).__name__}; send keys and values, one setting each")
    if unknown := sorted(str(key) for key in content if key not in keys):
        raise ConfigurationError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(keys)}")
    return {key: _as_text(value, f"{key} in {path}") for key, value in content.items()}


def _parsed(path: str, text: str) -> Any:
    try:
        return parse_json(text or "{}")
    except ValueError as error:
        if path.endswith(".json"):
            raise ConfigurationError(f"{path} is not JSON: {error}") from None
    try:
        content = parse_yaml(text)
    except ImportError:
        raise ConfigurationError(f"{path} is not JSON; to read YAML: pip install PyYAML") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is neither JSON nor YAML: {error}") from None
    return {} if content is None else content


def _as_text(value: Any, origin: str) -> str:
    if value is None:  # `key:` without a value counts as not set, like an empty variable
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_as_text(part, origin) for part in value)
    if isinstance(value, dict):
        raise ConfigurationError(f"{origin} has keys and values of its own; send one value")
    return str(value)
