"""docker-compose.yml agrees with our settings, our commands, our images and itself."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from pydantic_core import MultiHostUrl
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import make_url

from core.config import Settings
from tests.docker.test_images import IMAGES, ROOT, opened
from tests.support.command_line import understand
from tests.support.redis import SERVER
from tests.support.server import free_port, wait_until
from tests.test_packaging import version
from worker import device

Service = dict[str, Any]

TEXT = (ROOT / "docker-compose.yml").read_text()
GUIDE = (ROOT / "docs/docker.md").read_text()
WRITTEN = {"POSTGRES_PASSWORD": "one", "REDIS_PASSWORD": "two", "COMPOSE_PROFILES": "gpu"}
"""What an operator's .env holds."""


def interpolated(part: Any) -> Any:
    """As compose does it once it has read the file: `${A}`, `${A:-default}`, `${A:?why}`."""
    if isinstance(part, dict):
        return {name: interpolated(value) for name, value in part.items()}
    if isinstance(part, list):
        return [interpolated(value) for value in part]
    return (
        re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", _value, part) if isinstance(part, str) else part
    )


def _value(found: re.Match[str]) -> str:
    name, mark, word = found.groups()
    return WRITTEN.get(name, word) if mark == ":-" else WRITTEN[name]


def with_the_second_card(text: str) -> str:
    """Without the marks before the service that is there to be copied."""
    return re.sub(r"^  # (?=worker-1:|  )", "  ", text, flags=re.MULTILINE)


COMPOSE = interpolated(yaml.safe_load(with_the_second_card(TEXT)))
SERVICES: dict[str, Service] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if "build" in each}
WORKERS = {name: each for name, each in OURS.items() if each["command"][0] == "worker"}


def test_it_is_what_the_house_says() -> None:
    assert set(OURS) == {"migrate", "api", "worker-0", "worker-1", "worker-cpu"}
    assert set(SERVICES) - set(OURS) == {"postgres", "redis"}


@pytest.mark.parametrize("name", OURS)
def test_its_settings_are_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = OURS[name]["environment"]
    known = {f"STILLROOM_{field.upper()}" for field in Settings.model_fields}
    assert set(given) <= known
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    database = make_url(settings.database_url)
    assert (database.drivername, database.host) == ("postgresql+psycopg", "postgres")
    stated = SERVICES["postgres"]["environment"]
    assert database.username == database.database == stated["POSTGRES_USER"]
    assert database.password == stated["POSTGRES_PASSWORD"]
    (broker,) = MultiHostUrl(settings.broker_url.get_secret_value()).hosts()
    assert (broker["host"], broker["password"]) == ("redis", WRITTEN["REDIS_PASSWORD"])


@pytest.mark.parametrize("name", OURS)
def test_its_commands_are_ours(name: str) -> None:
    understand(OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_ours_are_built_from_our_files_and_tagged_with_our_version(name: str) -> None:
    kind = "worker" if name in WORKERS else "api"
    assert OURS[name]["build"] == {"context": ".", "dockerfile": f"docker/{kind}.Dockerfile"}
    assert OURS[name]["image"] == f"stillroom-{kind}:{version()}"


def test_the_images_of_others_have_a_version() -> None:
    for name in set(SERVICES) - set(OURS):
        assert re.fullmatch(rf"{name}:\d+[\w.-]*", SERVICES[name]["image"])


def test_only_the_api_is_published_and_on_loopback_alone() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    port = Settings.model_fields["port"].default
    assert published == {"api": [f"127.0.0.1:{port}:{port}"]}
    assert opened("api").last("EXPOSE").text == str(port)


def test_only_the_api_reaches_the_world() -> None:
    assert COMPOSE["networks"]["inside"]["internal"]
    outside = {name for name, each in SERVICES.items() if each["networks"] != ["inside"]}
    assert outside == {"api"}


def test_the_home_is_one_and_so_is_its_host() -> None:
    homes = {opened(name).environment()["STILLROOM_HOME"] for name in IMAGES}
    assert {each["hostname"] for each in OURS.values()} == {"stillroom"}
    assert {volume for each in OURS.values() for volume in each["volumes"]} == {
        f"home:{home}" for home in homes
    }
    named = {
        volume.split(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])
    }
    assert named == set(COMPOSE["volumes"])


def test_nobody_waits_for_what_cannot_come() -> None:
    for each in SERVICES.values():
        for name, how in each.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[name]["restart"] == "no"
    for name in ("api", *WORKERS):
        assert set(OURS[name]["depends_on"]) == {"migrate", "redis"}


def test_each_worker_drives_a_device_of_its_own_which_the_driver_shows_it() -> None:
    driven = []
    for each in WORKERS.values():
        verb, option, name = each["command"]
        assert (verb, option) == ("worker", "--device")
        (found,) = device.parse(name, lambda: ["first", "second"])
        driven.append(found.name)
        cards = each["deploy"]["resources"]["reservations"]["devices"] if "deploy" in each else []
        all_cards = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        assert cards == ([] if found.is_cpu else all_cards)
        assert each["profiles"] == (["cpu"] if found.is_cpu else ["gpu"])
    assert sorted(driven) == ["cpu", "cuda:0", "cuda:1"]


def test_who_gives_jobs_back_is_given_the_time() -> None:
    grace_seconds = Settings.model_fields["grace_seconds"].default
    for each in WORKERS.values():
        assert int(each["stop_grace_period"].removesuffix("s")) > grace_seconds


@pytest.fixture
def bell_port(tmp_path: Path) -> Iterator[int]:
    """Of a real Redis, started by the compose file's own command."""
    program, *options = SERVICES["redis"]["command"]
    assert SERVER.name == program
    port = free_port()
    process = subprocess.Popen(
        [SERVER, *options, "--port", str(port)], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    yield port
    process.terminate()
    process.wait()


def test_redis_answers_to_its_password_alone_and_keeps_nothing(bell_port: int) -> None:
    def ping(password: str | None) -> bool:
        with redis.Redis(port=bell_port, password=password, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())

    def answers() -> bool:
        try:
            return ping(WRITTEN["REDIS_PASSWORD"])
        except redis.ConnectionError:
            return False

    wait_until(answers, 60, "Redis answers")
    with pytest.raises(redis.AuthenticationError):
        ping(None)
    with redis.Redis(port=bell_port, password=WRITTEN["REDIS_PASSWORD"]) as client:
        assert client.config_get("save") == {"save": ""}
    assert SERVICES["redis"]["environment"]["REDISCLI_AUTH"] == WRITTEN["REDIS_PASSWORD"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guides_passwords_are_all_that_is_asked_for(tmp_path: Path) -> None:
    subprocess.run(["bash", "-euc", blocks("sh")[0]], cwd=tmp_path, check=True)
    lines = (tmp_path / ".env").read_text().splitlines()
    written = dict(line.split("=", 1) for line in lines)
    assert set(written) == set(WRITTEN)
    assert set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", TEXT)) <= set(written)
    assert any(written["COMPOSE_PROFILES"] in each["profiles"] for each in WORKERS.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert len({written["POSTGRES_PASSWORD"], written["REDIS_PASSWORD"]}) == 2


def test_the_guides_commands_are_ours_in_services_that_there_are() -> None:
    lines = [line for block in blocks("sh")[1:] for line in block.splitlines() if line]
    assert len(lines) > 5
    for line in lines:
        assert line.startswith("docker compose "), line
        words = line.partition("  #")[0].split()[2:]
        if words[0] == "exec":
            service, program, *rest = [word for word in words[1:] if word != "-T"]
            assert service in SERVICES
            if program == "stillroom":
                understand(rest)
