"""bases that were added

Revision: 0009
After: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bases",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("place", sa.String(length=255), nullable=False),
        sa.Column("layout", sa.String(length=20), nullable=False),
        sa.Column("widths", sa.JSON(), nullable=False),
        sa.Column("native_size", sa.BigInteger(), nullable=False),
        sa.Column("prediction_type", sa.String(length=20), nullable=False),
        sa.Column("own_vae", sa.Boolean(), nullable=False),
        sa.Column("licence", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bases"),
    )


def downgrade() -> None:
    op.drop_table("bases")
