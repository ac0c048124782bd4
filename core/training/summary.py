"""What every ``report.json`` says of its run."""

from collections.abc import Sequence

from core.diffusion.components import Components
from core.ladder import Rung
from core.training import memory
from core.training.cache import Cache
from core.training.report import StepReport
from core.training.run import Run


def summary(
    run: Run,
    components: Components,
    cache: Cache,
    rung: Rung,
    kept_out: Sequence[int],
    now: StepReport,
) -> dict[str, object]:
    """``now`` is the report of the last step."""
    spec = run.spec
    return {
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed or 0,
        "steps": now.steps,
        "losses": run.losses,
        "seconds_per_step": now.seconds_per_step,
        "peak_memory_bytes": memory.peak_bytes(components.device),
        "cache": {"hits": cache.hits, "misses": cache.misses},
        "held_out_pictures": list(kept_out),
        "rung": str(rung),
        "resumed_from_step": run.resumed_from,
        "exact": run.exact,
        "lesson_sha256": run.origin.lesson,
        **run.origin.arithmetic,
    }
