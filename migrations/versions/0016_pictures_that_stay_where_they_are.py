"""pictures that stay where they are

Revision: 0016
After: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("folder", sa.Text(), nullable=True))
    op.add_column("images", sa.Column("path", sa.Text(), nullable=True))
    op.add_column("images", sa.Column("offset", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("images") as images:
        images.alter_column("store_key", existing_type=sa.String(length=255), nullable=True)
    op.create_index("ix_images_dataset_id_id", "images", ["dataset_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_images_dataset_id_id", "images")
    op.execute("DELETE FROM images WHERE store_key IS NULL")
    op.execute("DELETE FROM datasets WHERE folder IS NOT NULL")
    with op.batch_alter_table("images") as images:
        images.alter_column("store_key", existing_type=sa.String(length=255), nullable=False)
    op.drop_column("images", "offset")
    op.drop_column("images", "path")
    op.drop_column("datasets", "folder")
