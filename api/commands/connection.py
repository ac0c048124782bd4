"""Where the server is and which key opens it: from the options, ``STILLROOM_*``, or a profile."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.client import Client, ClientError, is_local
from api.commands import profiles
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
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="A server of ~/.config/stillroom/profiles.toml, else STILLROOM_PROFILE.",
        show_default=False,
    ),
]


class Connection(BaseSettings):
    """What a client of a server on another host sets."""

    model_config = SettingsConfigDict(env_prefix="STILLROOM_", extra="ignore", frozen=True)

    url: str = "http://127.0.0.1:8400"
    key: SecretStr = Field(SecretStr(""), description="Empty: the admin key in the home.")
    profile: str = Field("", description="Empty: the address and the key above.")


def connect(url: str | None, home: Path | None, profile: str | None = None) -> Client:
    """A client for the server that was named; nothing is sent yet. A profile comes before the
    environment, and an address that was given before both."""
    connection = Connection()
    if name := profile or connection.profile:
        server = profiles.named(name)
        return Client(url or server.url, server.key.get_secret_value())
    address = url or connection.url
    return Client(address, connection.key.get_secret_value() or _own_key(address, home))


def settings_for(home: Path | None) -> Settings:
    return Settings() if home is None else Settings(home=home)


def ready_home(home: Path | None) -> Settings:
    """For verbs of the administrator, who may write the home: with a database, if no server has
    made it yet."""
    from core.db.migrate import upgrade

    settings = settings_for(home)
    settings.prepare()
    upgrade(settings.effective_database_url)
    return settings


def _own_key(address: str, home: Path | None) -> str:
    """The admin key of this machine's server, which no other host gets to see."""
    if not is_local(address):
        raise ClientError(
            f"No key for {address}: the admin key in the home is for a server on this machine "
            "alone. Set STILLROOM_KEY, or name a profile with --profile."
        )
    return _admin_key(settings_for(home).admin_key_path)


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
