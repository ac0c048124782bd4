"""shares of a device

Revision: 0010
After: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    share = sa.Column("device_share", sa.Double(), nullable=False, server_default="1")
    op.add_column("jobs", share)


def downgrade() -> None:
    op.drop_column("jobs", "device_share")
