-- A database of schema version 1, as trio-ws left it: what a later version opens and goes on with.
PRAGMA application_id = 1953655151;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "events" VALUES('ada',3,3,'run-2','agent_started',3,'{"run":2}',1.79569306087334108357e+09,NULL,NULL,0,1,0,1,0,2998558517);
INSERT INTO "events" VALUES('ada',4,4,'FGshfh_h-1','note',1,'{"text":"é 0"}',1.79569306108700346953e+09,1.79569324108700346942e+09,NULL,0,0,0,0,0,1875790779);
INSERT INTO "events" VALUES('ada',5,5,'FGshfh_h-2','note',1,'{"text":"é 1"}',1.79569306108708667758e+09,1.7956932410870866776e+09,NULL,0,0,0,0,0,3251527424);
INSERT INTO "events" VALUES('ada',6,6,'FGshfh_h-3','note',1,'{"text":"é 2"}',1.79569306108710241313e+09,1.79569324108710241319e+09,NULL,0,0,0,0,0,2598608640);
INSERT INTO "events" VALUES('ada',7,7,'FGshfh_h-4','note',1,'{"text":"é 3"}',1.7956930610871145725e+09,1.79569324108711457247e+09,NULL,0,0,0,0,0,2652942796);
INSERT INTO "events" VALUES('ada',8,8,'FGshfh_h-5','note',1,'{"text":"é 4"}',1.79569306108713030818e+09,1.79569324108713030815e+09,NULL,0,0,0,0,0,2265946797);
INSERT INTO "events" VALUES('ada',9,9,'FGshfh_h-6','note',1,'{"text":"é 5"}',1.79569306108714818958e+09,1.79569324108714818959e+09,NULL,0,0,0,0,0,1706588664);
INSERT INTO "events" VALUES('ada',10,10,'done','agent_completed',3,'{"run":0}',1.79569306108725690838e+09,NULL,NULL,0,1,0,1,0,3157479536);
INSERT INTO "events" VALUES('bob',1,1,'FGshfh_h-7','progress',1,'{"share":0.5}',1.79569306119326710705e+09,1.79569324119326710698e+09,'bar',0,0,0,0,0,1917894776);
INSERT INTO "events" VALUES('bob',2,2,'FGshfh_h-8','agent_thinking',3,'null',1.79569306119332718846e+09,NULL,NULL,0,1,0,0,0,2738961925);
CREATE TABLE keys (              -- idempotency keys of what has left the log
  user      TEXT NOT NULL,
  seq       INTEGER NOT NULL,
  id        TEXT NOT NULL,
  state     TEXT NOT NULL,
  PRIMARY KEY (user, seq)
) WITHOUT ROWID;
INSERT INTO "keys" VALUES('ada',1,'run-0','settled');
INSERT INTO "keys" VALUES('ada',2,'run-1','settled');
CREATE TABLE quarantine (        -- rows of other tables that made no sense, as JSON
  found     REAL NOT NULL,
  place     TEXT NOT NULL,
  why       TEXT NOT NULL,
  content   TEXT NOT NULL
);
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
INSERT INTO "sessions" VALUES('ada','5zy1_Dsm4txGLLspsLQ7adv6',0,2,'[]',1.79569306085815310475e+09,1.79569306369698524468e+09);
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
INSERT INTO "users" VALUES('ada','15Vq8mSTUWt9nexltmTm33Zk',10,10,2,1.79569324085845160483e+09,0,'[]');
INSERT INTO "users" VALUES('bob','TCdBeMh-w9M_ECUKrHqFoMB7',2,2,0,1.79569324119326710698e+09,0,'[]');
COMMIT;
