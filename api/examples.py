"""What the reference shows: one request and one answer of each sort, by the name of its schema.

They tell one story: a dog's LoRA, trained, then drawn with.
"""

from typing import Any

AT = "2026-11-25T09:30:00Z"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
IDS = {
    "dataset_id": "dst_01k9q3v5h2ta7d8xw0c6m4e1rn",
    "image_id": "img_01k9q3w1c8b5n7y2s4z6f0j3gp",
    "job_id": "job_01k9q3x7p4m9t2v6d8h0k5r1ws",
    "artifact_id": "art_01k9q40z3f6x1n8c5b7g2y4jqe",
    "worker_id": "wrk_01k9q2t0d5s7w3e9r1y6h8m4xv",
    "key_id": "key_01k9q2s6g1j4z8n5t3c7p0v2bd",
    "webhook_id": "whk_01k9q2r4m8c3x6b1v9n5z7k0hf",
    "delivery_id": "dlv_01k9q4b6w2e8r5t1y7u3p9s0jd",
}
"""Of rows, by the name of the path's parameter."""

FINE_TUNE = {
    "kind": "fine_tune",
    "spec": {
        "base": "ssd-1b",
        "dataset": IDS["dataset_id"],
        "instance_prompt": "a photo of sks dog",
        "steps": 500,
        "sample": {"prompts": ["a photo of sks dog on a beach"], "every": 100},
    },
    "labels": {"customer": "4711"},
}
DISTILL = {
    "kind": "distill",
    "spec": {"teacher": "sdxl", "dataset": IDS["dataset_id"], "steps": 20_000, "batch_size": 4},
}
GENERATE = {
    "kind": "generate",
    "spec": {
        "base": "ssd-1b",
        "loras": [{"job": IDS["job_id"], "weight": 0.9}],
        "prompt": ["a photo of sks dog on a beach", "a photo of sks dog in the snow"],
        "seed": 7,
    },
    "deadline_seconds": 3600,
}

_FLAW = {"code": "few_pictures", "detail": "2 of 3 to 5 pictures: more views of the subject help."}
_DATASET = {
    "id": IDS["dataset_id"],
    "name": "my dog",
    "kind": "instance",
    "images": 2,
    "bytes": 812_345,
    "sha256": None,
    "frozen": False,
    "report": {"ready": True, "problems": [], "suggestions": [{**_FLAW, "images": []}]},
    "created_at": AT,
}
_IMAGE = {
    "id": IDS["image_id"],
    "filename": "dog/01.jpg",
    "width": 1024,
    "height": 768,
    "bytes": 401_122,
    "sha256": SHA256,
    "caption": "a dog on a lawn",
    "problems": [],
}
_JOB = {
    "id": IDS["job_id"],
    "kind": "fine_tune",
    "state": "running",
    "name": None,
    "spec": FINE_TUNE["spec"],
    "progress": {
        "step": 120,
        "steps": 500,
        "fraction": 0.24,
        "eta_seconds": 41.0,
        "message": "training",
    },
    "queue_position": None,
    "attempt": 1,
    "priority": 0,
    "labels": {"customer": "4711"},
    "webhook": None,
    "error": None,
    "parent": None,
    "after": None,
    "result": None,
    "worker": IDS["worker_id"],
    "device": "cuda:0",
    "usage": {"device_seconds": 31.2, "queue_seconds": 0.1},
    "created_at": AT,
    "started_at": AT,
    "finished_at": None,
}
_FILE = {"path": "pytorch_lora_weights.safetensors", "bytes": 11_826_904, "sha256": SHA256}
_ARTIFACT = {
    "id": IDS["artifact_id"],
    "job": IDS["job_id"],
    "kind": "lora",
    "role": "lora",
    "name": "my dog",
    "format": "peft",
    "bytes": 11_826_904,
    "sha256": SHA256,
    "base": "ssd-1b",
    "layout": "ssd-1b",
    "files": [_FILE],
    "metadata": {"rank": 8, "alpha": 8.0, "trigger": "sks dog"},
    "created_at": AT,
    "expires_at": None,
}
_KEY = {
    "id": IDS["key_id"],
    "owner": "the shop",
    "name": "production",
    "scopes": ["read", "write"],
    "created_at": AT,
}

_DELIVERY = {
    "id": IDS["delivery_id"],
    "event": "job.succeeded",
    "job": IDS["job_id"],
    "state": "delivered",
    "attempts": 1,
    "status": 204,
    "error": None,
    "created_at": AT,
    "next_attempt_at": None,
    "delivered_at": AT,
}
_WEBHOOK_ASKED = {
    "url": "https://shop.example/hooks/stillroom",
    "events": ["job.succeeded", "job.failed"],
    "name": "the shop",
}
_WEBHOOK = {
    **_WEBHOOK_ASKED,
    "id": IDS["webhook_id"],
    "created_at": AT,
    "last_delivery": _DELIVERY,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "DatasetCreate": {"name": "my dog", "kind": "instance"},
    "DatasetRead": _DATASET,
    "UploadRead": {
        "items": [
            {
                "filename": "dog/01.jpg",
                "id": IDS["image_id"],
                "kind": "image",
                "problems": [],
            },
            {
                "filename": "dog/print.jpg",
                "id": None,
                "kind": "image",
                "problems": [
                    {
                        "code": "cmyk",
                        "detail": "dog/print.jpg is a CMYK picture, made for print: save it as "
                        "RGB.",
                    }
                ],
            },
        ],
        "dataset": _DATASET,
    },
    "ImageRead": _IMAGE,
    "ImageChange": {"caption": "a dog on a lawn"},
    "JobCreate": FINE_TUNE,
    "JobRead": _JOB,
    "Extension": {"steps": 250},
    "ForecastRead": {
        "steps": 500,
        "seconds": 212.0,
        "basis": "measured",
        "peak_memory_bytes": 9_100_000_000,
        "disk_bytes": 240_000_000,
        "fits": True,
    },
    "EventsRead": {
        "items": [
            {
                "seq": 3,
                "at": AT,
                "type": "progress",
                "attempt": 1,
                "data": {"step": 120, "steps": 500, "message": "training"},
            }
        ],
        "next_after": 3,
    },
    "MetricsRead": {
        "step": [1, 2],
        "loss": [0.214, 0.198],
        "learning_rate": [1e-4, 1e-4],
        "seconds_per_step": [0.41, 0.4],
        "terms": {"prior": [0.101, 0.097]},
    },
    "LogsRead": {"lines": ["2026-11-25 09:30:00 INFO step 120 of 500, loss 0.198"]},
    "ArtifactRead": _ARTIFACT,
    "ArtifactBrought": {**_ARTIFACT, "job": None, "format": "kohya", "warnings": []},
    "ArtifactChange": {"name": "my dog, second try"},
    "LinkCreate": {"expires_in": 3600},
    "LinkRead": {
        "url": f"http://127.0.0.1:8400/links/{IDS['artifact_id']}?token=…",
        "expires_at": AT,
    },
    "QueueRead": {
        "depth": 4,
        "running": 1,
        "items": [{"job": IDS["job_id"], "position": 2, "eta_seconds": 90.0}],
    },
    "WorkerRead": {
        "id": IDS["worker_id"],
        "host": "rack-1",
        "device": "cuda:0",
        "role": "any",
        "chip": "NVIDIA RTX 4090",
        "memory_bytes": 25_757_220_864,
        "models": ["ssd-1b", "sdxl"],
        "resident": ["ssd-1b"],
        "job": IDS["job_id"],
        "busy": True,
        "beat_age_seconds": 3.1,
        "ready": True,
        "state": "open",
        "quarantined": False,
        "reason": None,
    },
    "ModelRead": {
        "id": "ssd-1b",
        "layout": "ssd-1b",
        "parameters": 1_330_000_000,
        "native_size": 1024,
        "prediction_type": "epsilon",
        "licence": "Apache-2.0",
        "available": False,
        "why_not": "No live worker has it: run `stillroom models pull ssd-1b`.",
    },
    "KeyCreate": {"name": "production", "owner": "the shop", "scopes": ["read", "write"]},
    "KeyRead": _KEY,
    "KeyMade": {**_KEY, "key": "stillroom_…"},
    "WebhookCreate": _WEBHOOK_ASKED,
    "WebhookRead": _WEBHOOK,
    "WebhookMade": {**_WEBHOOK, "last_delivery": None, "secret": "whsec_…"},
    "DeliveryRead": _DELIVERY,
    "HealthRead": {"status": "ok"},
    "ReadyRead": {"status": "ready", "workers": 2},
}

PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("malformed_json", "The body is not JSON: expecting value."),
    401: ("unauthorized", "This key is not known here: it was mistyped or has been deleted."),
    403: ("insufficient_scope", "This takes a key with the scope `write`."),
    404: ("not_found", f"There is no job '{IDS['job_id']}'."),
    406: ("not_acceptable", "There is a page of JSON and there is an event stream."),
    409: ("wrong_state", f"'{IDS['job_id']}' has ended (failed): there is nothing left to cancel."),
    413: ("too_large", "The body may have 4,194,304 bytes: send fewer files at a time."),
    415: ("unsupported_media_type", "The body came as 'text/plain': send JSON."),
    416: ("range_not_satisfiable", "The file has 1,024 bytes."),
    421: ("wrong_host", "This server does not answer to 'example.org'."),
    422: ("invalid", "`steps` is 0: input should be greater than or equal to 1."),
    429: ("too_often", "This key may send 3,000 requests a minute: come back in 2 s."),
    500: ("internal_error", "Something went wrong here. The server's log has the reason."),
    503: ("unavailable", "The server is ending: send this again in a moment."),
}
"""A refusal of each status: its code and its sentence."""
