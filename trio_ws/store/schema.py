"""The tables of a SQLite store, as a person reads them with the `sqlite3` shell, and how older ones become today's."""

from __future__ import annotations

import sqlite3
from typing import Final

from ..errors import StoreError

APPLICATION_ID: Final = 0x7472696F
"""`trio`, in the file's header: what tells our files from others."""

FIRST: Final = """
CREATE TABLE users (             -- one row a user: the log as a whole
  user      TEXT PRIMARY KEY,
  epoch     TEXT NOT NULL,
  head      INTEGER NOT NULL,    -- the newest seq that is accounted for
  reserved  INTEGER NOT NULL,    -- seqs up to here may have been shown, and are given to no other event
  confirmed INTEGER NOT NULL,    -- everything up to here is confirmed, or gone
  due       REAL,                -- when something expires next, as all times in seconds since 1970
  partial   INTEGER NOT NULL,    -- events that are not critical are not written
  gone      TEXT                 -- what was lost: [[first, last, reason, {type: count}, critical], …]
) WITHOUT ROWID;
CREATE TABLE events (            -- what is held, and history
  user      TEXT NOT NULL,
  first     INTEGER NOT NULL,    -- it stands for the seqs from first to seq
  seq       INTEGER NOT NULL,
  id        TEXT NOT NULL,
  type      TEXT NOT NULL,
  priority  INTEGER NOT NULL,    -- 0 low, 1 normal, 2 high, 3 critical
  payload   TEXT NOT NULL,       -- JSON
  ts        REAL NOT NULL,       -- when it was accepted
  expires   REAL,
  key       TEXT,
  merge     INTEGER NOT NULL,
  tracked   INTEGER NOT NULL,
  truncated INTEGER NOT NULL,
  owned_id  INTEGER NOT NULL,    -- the id is its publisher's own
  confirmed INTEGER NOT NULL,    -- 1, or at or below confirmed of its user: a client has processed it
  crc       INTEGER NOT NULL,    -- of the columns before, without confirmed
  PRIMARY KEY (user, first)
) WITHOUT ROWID;
CREATE TABLE sessions (          -- tabs and devices
  user      TEXT NOT NULL,
  session   TEXT NOT NULL,
  base      INTEGER NOT NULL,    -- it began after this seq
  acked     INTEGER NOT NULL,    -- and has processed all up to this one
  skipped   TEXT NOT NULL,       -- but for these, of which its acks say nothing
  created   REAL NOT NULL,
  parked    REAL,                -- NULL while it is connected
  PRIMARY KEY (user, session)
) WITHOUT ROWID;
CREATE TABLE keys (              -- idempotency keys of what has left the log
  user      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  id        TEXT NOT NULL,
  state     TEXT NOT NULL,
  PRIMARY KEY (user, seq)
) WITHOUT ROWID;
CREATE TABLE quarantine (        -- rows of other tables that made no sense, as JSON
  found     REAL NOT NULL,
  place     TEXT NOT NULL,
  why       TEXT NOT NULL,
  content   TEXT NOT NULL
);
"""

WITH_REST: Final = """
ALTER TABLE users ADD COLUMN
  rest      INTEGER NOT NULL DEFAULT 0 /* events from this seq on are not in memory yet; 0 where all are */;
"""

REVOKED: Final = """
CREATE TABLE revoked (           -- users whose credentials are taken only if they were issued later
  user      TEXT PRIMARY KEY,
  since     REAL NOT NULL,       -- later than this
  until     REAL NOT NULL        -- and after this, all are taken
) WITHOUT ROWID;
CREATE INDEX revoked_until ON revoked (until);
"""

RUNS: Final = """
ALTER TABLE events ADD COLUMN run TEXT;    -- the agent's run that it is part of
CREATE TABLE runs (              -- agents' runs
  user      TEXT NOT NULL,
  run       TEXT NOT NULL,
  open      INTEGER NOT NULL,    -- it has had no terminal event
  lease     REAL,                -- seconds that it outlives its publisher's silence; NULL for a block of the process
  state     TEXT NOT NULL,       -- JSON: where it stands; events of it above its seq are to be folded in
  PRIMARY KEY (user, run)
) WITHOUT ROWID;
CREATE INDEX open_runs ON runs (user) WHERE open;
"""

MIGRATIONS: Final = (FIRST, WITH_REST, REVOKED, RUNS)
"""What makes each version out of the one before; the version that a file has is its `user_version`."""


def version_of(db: sqlite3.Connection) -> int:
    """The version of the schema of `db`; 0 for a new file. Nothing is changed.

    Raises:
      StoreError: it is no file of ours, or was made by a newer version.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError("it is a database of something else")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"its schema is version {version}, and this version of trio-ws knows {len(MIGRATIONS)}"
        )
    return int(version)


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring the schema of `db` from this version to today's, all of it or nothing."""
    if version < len(MIGRATIONS):
        script = "".join(MIGRATIONS[version:])
        db.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {len(MIGRATIONS)}; COMMIT;"
        )
