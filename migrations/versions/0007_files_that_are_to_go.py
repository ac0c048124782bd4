"""files that are to go

Revision: 0007
After: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name="pk_deletions"),
    )


def downgrade() -> None:
    op.drop_table("deletions")
