"""lanes, parents, deadlines and devices

Revision: 0005
After: 0004
"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PARTIAL = {
    "ix_jobs_in_lane": (["lane", "id"], "state = 'queued' AND waits = 0"),
    "ix_jobs_came_back": (
        ["lane", "id"],
        "state = 'queued' AND waits = 0 AND queued_at != created_at",
    ),
    "ix_jobs_running": (["worker_id"], "state = 'running' AND worker_id IS NOT NULL"),
    "ix_jobs_may_expire": (
        ["expires_at"],
        "state = 'queued' AND started_at IS NULL AND expires_at IS NOT NULL",
    ),
}
_PLAIN = {
    "ix_jobs_owner_state_id": ["owner", "state", "id"],
    "ix_jobs_lane_started_at": ["lane", "started_at"],
    "ix_jobs_finished_at": ["finished_at"],
    "ix_jobs_swept_finished_at": ["swept", "finished_at"],
}


def upgrade() -> None:
    op.create_table(
        "lanes",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("also_base", sa.String(length=255), nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("floor", sa.String(length=40), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_lanes"),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("lost", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_devices"),
    )
    op.create_table(
        "job_logs",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("lines", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_logs_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_logs"),
    )
    op.execute("DELETE FROM workers")  # they sign on again: a revision ends those that live
    op.add_column("workers", sa.Column("device_id", sa.String(length=255), nullable=False))
    op.add_column("workers", sa.Column("resident", sa.JSON(), nullable=False))
    op.add_column("workers", sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False))
    for column in (
        sa.Column("lane", sa.String(length=32), nullable=False, server_default=""),
        sa.Column("after", sa.String(length=40), nullable=True),
        sa.Column("waits", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("shuns", sa.String(length=255), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("swept", sa.BigInteger(), nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
    _fill_lanes()
    op.drop_index("ix_jobs_state_turn_id", "jobs")
    op.drop_index("ix_jobs_worker_id_state", "jobs")
    op.drop_column("jobs", "turn")
    for name, columns in _PLAIN.items():
        op.create_index(name, "jobs", columns)
    for name, (columns, where) in _PARTIAL.items():
        held = sa.text(where)
        op.create_index(name, "jobs", columns, postgresql_where=held, sqlite_where=held)


def downgrade() -> None:
    for name in (*_PARTIAL, *_PLAIN):
        op.drop_index(name, "jobs")
    op.add_column("jobs", sa.Column("turn", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET turn = -2 * priority + CASE kind WHEN 'generate' THEN 0 ELSE 1 END")
    op.create_index("ix_jobs_state_turn_id", "jobs", ["state", "turn", "id"])
    op.create_index("ix_jobs_worker_id_state", "jobs", ["worker_id", "state"])
    for column in ("swept", "claimed_at", "shuns", "expires_at", "waits", "after", "lane"):
        op.drop_column("jobs", column)
    for column in ("beat_at", "resident", "device_id"):
        op.drop_column("workers", column)
    op.drop_table("job_logs")
    op.drop_table("devices")
    op.drop_table("lanes")


def _fill_lanes() -> None:
    """Of the jobs that are there, as ``core.jobs.lanes`` names them."""
    names = ("owner", "kind", "base", "also_base", "priority")
    jobs = sa.table("jobs", sa.column("lane"), *map(sa.column, names))
    lanes = sa.table("lanes", sa.column("id"), *map(sa.column, names))
    columns = [jobs.c[name] for name in names]
    for values in op.get_bind().execute(sa.select(*columns).distinct()).all():
        lane = hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()[:32]
        of_lane = [
            column.is_not_distinct_from(value)
            for column, value in zip(columns, values, strict=True)
        ]
        op.execute(lanes.insert().values(id=lane, **dict(zip(names, values, strict=True))))
        op.execute(jobs.update().where(*of_lane).values(lane=lane))
