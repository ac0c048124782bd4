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
    op.add_column("jobs", sa.Column("parent", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("checkpoints", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("checkpoints", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("checkpoints")
        jobs.drop_column("parent")
