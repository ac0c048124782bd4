"""what pictures were

Revision: 0015
After: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("images", sa.Column("stored_sha256", sa.String(64)))
    op.add_column(
        "images", sa.Column("turned", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    columns = ["dataset_id", "stored_sha256", "id"]
    op.create_index("ix_images_dataset_id_stored_sha256", "images", columns)


def downgrade() -> None:
    op.drop_index("ix_images_dataset_id_stored_sha256", "images")
    op.drop_column("images", "turned")
    op.drop_column("images", "stored_sha256")
