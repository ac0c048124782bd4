"""what work takes

Revision: 0003
After: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("rung", sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("rung", server_default=None)
    op.add_column("workers", sa.Column("chip", sa.String(length=255), nullable=True))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "rates",
        sa.Column("chip", sa.String(length=255), nullable=False),
        sa.Column("work", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("seconds_per_step", sa.Double(), nullable=False),
        sa.Column("other_seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chip", "work", name="pk_rates"),
    )


def downgrade() -> None:
    op.drop_table("rates")
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("memory_bytes")
        workers.drop_column("chip")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("rung")
