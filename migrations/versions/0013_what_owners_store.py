"""what owners store

Revision: 0013
After: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_artifacts_owner_bytes", "artifacts", ["owner", "bytes"])


def downgrade() -> None:
    op.drop_index("ix_artifacts_owner_bytes", "artifacts")
