"""``python -m tests.faults.small_disk FOLDER``: a small disk as a home, filled, then emptied.

Runs in a mount namespace of its own.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from api.client import ApiError
from tests.faults.place import Place, embedded
from tests.support import pictures

DISK = "64m"
FULL_SECONDS = 4.0


def main(folder: Path) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", home], check=True)
    settings = {"STILLROOM_MIN_FREE_BYTES": "0", "STILLROOM_RETRY_SECONDS": "[0.5]"}
    with embedded(home, "cpu,cpu", **settings) as place:
        play(place)


def play(place: Place) -> None:
    jobs = [place.train(steps=100), place.draw()]
    place.wait_for_step(jobs[0], 6)
    dataset = place.client.create_dataset("too much")["id"]
    sent = pictures.write(place.server.settings.root.parent / "sent", 2)
    ballast = place.server.settings.root / "ballast"
    fill(ballast)
    refused = refusal_of(place, dataset, sent)
    assert (refused.status, refused.code) == (503, "disk_full"), refused.problem
    assert refused.problem["retry_after"] > 0
    time.sleep(FULL_SECONDS)
    assert place.job(jobs[0]).state != "failed", place.job(jobs[0]).error
    ballast.unlink()
    assert place.client.upload(dataset, sent)["dataset"]["images"] == 2
    jobs.append(place.draw())
    place.wait_for_end(*jobs)
    assert "disk is full" in place.server.log(), "it is said in the log"
    place.check(accepted=jobs)


def refusal_of(place: Place, dataset: str, sent: list[Path]) -> ApiError:
    try:
        place.client.upload(dataset, sent)
    except ApiError as error:
        return error
    raise AssertionError("there was room")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue


if __name__ == "__main__":
    main(Path(sys.argv[1]))
