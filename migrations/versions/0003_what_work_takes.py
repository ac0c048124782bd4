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
    op.add_column("workers", sa.Column("chip", sa.String(length=255), nullable=True))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "rates",
        sa.Column("chip", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("work", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.Column("seconds_per_step", sa.Double(), nullable=False),
        sa.Column("other_seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("chip", "owner", "work", name="pk_rates"),
    )


def downgrade() -> None:
    op.drop_table("rates")
    op.drop_column("workers", "memory_bytes")
    op.drop_column("workers", "chip")
    op.drop_column("jobs", "rung")
