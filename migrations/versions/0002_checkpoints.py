"""where a job stands

Revision: 0002
After: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # no batch: SQLite would make the table anew, and rows that refer to it forbid that
    op.add_column("jobs", sa.Column("parent", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("checkpoints", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("jobs", "checkpoints")
    op.drop_column("jobs", "parent")
