"""Where the server is and which key opens it: from the options, else from ``STILLROOM_*``."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.client import Client, ClientError
from core.config import Settings

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The server's address, else STILLROOM_URL, else http://127.0.0.1:8400.",
        show_default=False,
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The server's folder, else STILLROOM_HOME, else ~/.local/share/stillroom.",
        show_default=False,
    ),
]


class Connection(BaseSettings):
    """What a client of a server on another host sets."""

    model_config = SettingsConfigDict(env_prefix="STILLROOM_", extra="ignore", frozen=True)

    url: str = "http://127.0.0.1:8400"
    key: SecretStr = Field(SecretStr(""), description="Empty: the admin key in the home.")


def connect(url: str | None, home: Path | None) -> Client:
    """A client for the server that was named; nothing is sent yet."""
    connection = Connection()
    key = connection.key.get_secret_value() or _admin_key(settings_for(home).admin_key_path)
    return Client(url or connection.url, key)


def settings_for(home: Path | None) -> Settings:
    return Settings() if home is None else Settings(home=home)


def _admin_key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ClientError(
            f"No key: there is none at {path}. `stillroom serve` makes it at its first start; for "
            "a server elsewhere set STILLROOM_KEY, for another home give --home."
        ) from None
    except OSError as error:
        raise ClientError(f"The key at {path} cannot be read: {error.strerror}.") from error
