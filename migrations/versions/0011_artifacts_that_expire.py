"""artifacts that expire, and folders that are looked after for a while

Revision: 0011
After: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_EXPIRES = sa.text("expires_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("deletions", sa.Column("until", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_artifacts_expires_at",
        "artifacts",
        ["expires_at"],
        postgresql_where=_EXPIRES,
        sqlite_where=_EXPIRES,
    )


def downgrade() -> None:
    op.drop_index("ix_artifacts_expires_at", "artifacts")
    op.drop_column("deletions", "until")
