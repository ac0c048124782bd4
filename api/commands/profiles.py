"""Servers that a person works with, by name: ``~/.config/stillroom/profiles.toml``.

[rack]
url = "https://stillroom.example"
key = "stillroom_…"
"""

import os
import stat
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from api.client import ClientError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Server(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://")
    key: SecretStr


def path() -> Path:
    """As the XDG base directory specification has it."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "stillroom" / "profiles.toml"


def named(name: str) -> Server:
    """
    Raises:
        ClientError: there is no such profile, or the file cannot be used; says what to do.
    """
    file = path()
    try:
        servers = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClientError(
            f"There is no profile '{name}': {file} is not there. Write [{name}] into it, with "
            "url and key."
        ) from None
    except (OSError, ValueError) as error:
        raise ClientError(f"{file} cannot be read: {error}.") from error
    if file.stat().st_mode & _OTHERS:
        raise ClientError(f"{file} holds keys and others may read it: `chmod 600 {file}`.")
    if name not in servers:
        known = ", ".join(servers) or "none"
        raise ClientError(f"There is no profile '{name}' in {file}: it has {known}.")
    try:
        return Server.model_validate(servers[name])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or name
        raise ClientError(f"[{name}] in {file}: {field}: {first['msg']}.") from error
