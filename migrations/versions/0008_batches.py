"""drawings that may be computed together

Revision: 0008
After: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BATCHED = sa.text("state = 'queued' AND waits = 0 AND batch_key IS NOT NULL")


def upgrade() -> None:
    op.execute("UPDATE devices SET lost = '[]'")  # lists of lists from here on
    op.add_column("jobs", sa.Column("batch_key", sa.String(length=32), nullable=True))
    for name in ("pictures", "row_bytes"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index(
        "ix_jobs_batched",
        "jobs",
        ["batch_key", "id"],
        postgresql_where=_BATCHED,
        sqlite_where=_BATCHED,
    )


def downgrade() -> None:
    op.execute("UPDATE devices SET lost = '[]'")
    op.drop_index("ix_jobs_batched", "jobs")
    for name in ("row_bytes", "pictures", "batch_key"):
        op.drop_column("jobs", name)
