"""Settings: every number that an operator may turn, with its unit and its reason.

Read once, at the start of a process, from ``STILLROOM_*``; passed on as a value.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024**2
GIB = 1024**3
Host = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[^\s/@]+$")]
"""A name or an address, without scheme or port."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="STILLROOM_", extra="ignore", frozen=True)

    home: Path = Field(
        Path("~/.local/share/stillroom"), description="Everything that is kept on this disk."
    )
    host: str = Field("127.0.0.1", description="Loopback: nothing is offered to a network unasked.")
    port: int = Field(8400, ge=0, le=65535)
    allowed_hosts: list[str] = Field(
        [], description="Further names this server answers to, beside loopback and `host`."
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="How others reach this server, for links. Empty: as the request did.",
    )
    webhook_hosts: list[Host] = Field(
        [],
        description="Of receivers in the house, which webhooks may call over http and at private "
        "addresses. All others: https, and public.",
    )
    metrics_open: bool = Field(
        False, description="Whether `/metrics` answers without a key, to whoever reaches it."
    )
    database_url: str = Field("", description="SQLAlchemy URL. Empty: SQLite in the home.")
    broker_url: SecretStr = Field(
        SecretStr(""), description="redis://… Empty: no broker, workers watch the database file."
    )
    store_url: str = Field("", description="s3://, gs://, az://. Empty: a folder in the home.")
    devices: str = Field("auto", description="auto | cpu | cuda:0=generate,cuda:1=train,cuda:2")
    device: str = Field("cpu", description="One worker's own device, set by the supervisor.")
    resident_bytes: int | None = Field(
        None, ge=0, description="Of a device's memory, for bases. Empty: half of it."
    )
    warm: list[str] = Field([], description="Bases that a worker loads before it takes a job.")
    bases: dict[str, Path] = Field(
        {}, description="Base id to a local folder, for bases that are on this disk already."
    )
    hub_url: str = Field("", description="A mirror of the hub for `models pull`. Empty: the hub.")
    log_level: str = "INFO"

    beat_seconds: float = Field(10.0, gt=0, description="How often a worker says it lives.")
    lease_seconds: float = Field(60.0, gt=0, description="Unmoved for so long means lost.")
    poll_seconds: float = Field(5.0, gt=0, description="The safety net under bells and watches.")
    watch_seconds: float = Field(0.02, gt=0, description="Between two looks at SQLite's counter.")
    reap_seconds: float = Field(1.0, gt=0, description="Between two rounds of the reaper.")
    grace_seconds: float = Field(20.0, gt=0, description="From SIGTERM to a clean end.")
    retry_seconds: list[float] = Field(
        [2.0, 10.0, 60.0], description="Pauses before a job that lost its worker is taken again."
    )
    max_losses: int = Field(
        3, ge=1, description="Losses of one job, without progress, before it is called poison."
    )
    max_preemptions_per_hour: int = Field(
        4, ge=0, description="How often a training makes way for pictures of higher priority."
    )
    watchdog_seconds: float = Field(
        300.0,
        gt=0,
        description="Silent for so long, and for 10 usual steps, a runner hangs.",
    )
    min_free_bytes: int = Field(
        GIB, ge=0, description="Of the home's disk: with less, nothing is claimed."
    )
    keep_jobs_days: float | None = Field(
        None, gt=0, description="Ended jobs and what they made, unless needed. Empty: for ever."
    )
    keep_checkpoints_days: float | None = Field(
        7.0, gt=0, description="Of ended jobs, for `extend` and `retry`. Empty: as long as the job."
    )

    import_roots: list[Path] = Field(
        [],
        description="Folders below which `stillroom dataset import` takes pictures. Empty: none.",
    )
    max_body_bytes: int = Field(2 * GIB, gt=0, description="One request.")
    max_lora_bytes: int = Field(
        2 * GIB, gt=0, description="One LoRA that is brought; rank 256 in half precision has 1.7."
    )
    max_image_bytes: int = Field(64 * MIB, gt=0, description="One picture as sent.")
    max_image_pixels: int = Field(100_000_000, gt=0, description="Above it: a bomb or a poster.")
    max_image_side: int = Field(16_384, gt=0, description="Pixels; WebP's own limit.")
    picture_seconds: float = Field(
        60.0, gt=0, description="To unpack one picture; one at the caps takes about five."
    )
    max_dataset_images: int = Field(10_000, gt=0, description="Of uploads; imports have no cap.")
    max_files: int = Field(1_000, gt=0, description="Files in one upload.")
    max_zip_entries: int = Field(10_000, gt=0, description="Of all zips in one upload.")
    max_zip_bytes: int = Field(4 * GIB, gt=0, description="All members of one zip, unpacked.")
    max_zip_ratio: int = Field(200, gt=0, description="Unpacked to packed; pictures are near 1.")
    max_queued_jobs: int = Field(1_000, gt=0, description="Waiting jobs of one owner.")
    max_running_jobs: int | None = Field(
        None, gt=0, description="Of one owner; further ones wait. Empty: as many as devices take."
    )
    max_stored_bytes: int | None = Field(
        None, gt=0, description="Pictures and artifacts of one owner. Empty: what the disk holds."
    )
    max_requests_per_minute: int | None = Field(
        3_000,
        gt=0,
        description="Of one key, to one API process; an admin key on this machine is not counted. "
        "Empty: any number.",
    )
    max_waiting: int = Field(
        1_000, gt=0, description="Clients that wait for jobs: open streams and held answers."
    )

    @model_validator(mode="after")
    def _lease_outlasts_beats(self) -> Self:
        if self.lease_seconds < 3 * self.beat_seconds:
            raise ValueError(
                f"lease_seconds {self.lease_seconds} must be at least three beats of "
                f"{self.beat_seconds} s, or one late beat loses a job"
            )
        return self

    @cached_property
    def root(self) -> Path:
        """The home, absolute."""
        return self.home.expanduser().resolve()

    @property
    def sqlite_path(self) -> Path:
        return self.root / "stillroom.db"

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.sqlite_path}"

    @property
    def embedded(self) -> bool:
        """No broker beside us: bells are rung by watching the database file."""
        return not self.broker_url.get_secret_value()

    @property
    def blobs_path(self) -> Path:
        return self.root / "blobs"

    @property
    def scratch_path(self) -> Path:
        return self.root / "scratch"

    @property
    def models_path(self) -> Path:
        return self.root / "models"

    @property
    def added_path(self) -> Path:
        """Bases that the administrator added."""
        return self.models_path / "added"

    @property
    def cache_path(self) -> Path:
        """Encoded pictures and captions, and class pictures: lost without loss."""
        return self.root / "cache"

    @property
    def loras_path(self) -> Path:
        """LoRAs of artifacts, fetched from the store by this host's workers."""
        return self.root / "loras"

    @property
    def unets_path(self) -> Path:
        """UNets of artifacts that are used as bases: lost without loss."""
        return self.root / "unets"

    @property
    def run_path(self) -> Path:
        """Locks of the processes that live now."""
        return self.root / "run"

    @property
    def admin_key_path(self) -> Path:
        return self.root / "admin.key"

    def prepare(self) -> None:
        """Makes the home and its rooms, readable by this user alone."""
        caches = (self.models_path, self.cache_path, self.unets_path, self.loras_path)
        for folder in (self.root, self.scratch_path, *caches, self.run_path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_uid == os.geteuid():
            self.root.chmod(0o700)  # it may have been there before, open to others
