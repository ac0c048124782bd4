"""The least that FastAPI and SQLAlchemy do: `python -m tests.bench.bare_api URL PORT`.

One row read by its key for a GET, one row inserted for a POST, as their tutorials have it. No keys,
no owners, no checks, no queue. SQLite is as durable as ours: WAL, and synchronous=FULL.
"""

import sys
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, Engine, String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSON)


class RowCreate(BaseModel):
    document: dict[str, Any]


class RowRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    document: dict[str, Any]


def engine_of(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=20)
    engine = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    return engine


def bare_app(engine: Engine) -> FastAPI:
    app = FastAPI()
    Base.metadata.create_all(engine)

    def session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    Opened = Annotated[Session, Depends(session)]

    @app.post("/rows", status_code=201)
    def insert(body: RowCreate, session: Opened) -> RowRead:
        row = Row(id=uuid.uuid4().hex, document=body.document)
        session.add(row)
        session.commit()
        return RowRead.model_validate(row)

    @app.get("/rows/{row_id}")
    def read(row_id: str, session: Opened) -> RowRead:
        row = session.get(Row, row_id)
        if row is None:
            raise HTTPException(404)
        return RowRead.model_validate(row)

    return app


if __name__ == "__main__":
    _, url, port = sys.argv
    uvicorn.run(bare_app(engine_of(url)), port=int(port), log_config=None, access_log=False)
