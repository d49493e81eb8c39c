-- A database of schema version 3, as trio-ws left it: what a later version opens and goes on with.
PRAGMA application_id = 1953655151;
PRAGMA user_version = 3;
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
INSERT INTO "events" VALUES('ada',3,3,'run-2','agent_started',3,'{"run":2}',1.79569643562806534765e+09,NULL,NULL,0,1,0,1,0,4154713533);
INSERT INTO "events" VALUES('ada',10,10,'done','agent_completed',3,'{"run":0}',1.79569643583735060691e+09,NULL,NULL,0,1,0,1,0,3416808891);
INSERT INTO "events" VALUES('ada',11,11,'more-0','agent_started',3,'{"run":0}',1.79569643594433617597e+09,NULL,NULL,0,1,0,1,0,466397871);
INSERT INTO "events" VALUES('ada',12,12,'more-1','agent_started',3,'{"run":1}',1.79569643595859360692e+09,NULL,NULL,0,1,0,1,0,4092827678);
INSERT INTO "events" VALUES('ada',13,13,'more-2','agent_started',3,'{"run":2}',1.79569643596754074097e+09,NULL,NULL,0,1,0,1,0,1370788355);
INSERT INTO "events" VALUES('ada',14,14,'more-3','agent_started',3,'{"run":3}',1.79569643597522974015e+09,NULL,NULL,0,1,0,1,0,2743757249);
INSERT INTO "events" VALUES('ada',15,15,'more-4','agent_started',3,'{"run":4}',1.79569643598352479936e+09,NULL,NULL,0,1,0,1,0,2136400827);
INSERT INTO "events" VALUES('ada',16,16,'more-5','agent_started',3,'{"run":5}',1.79569643598643660545e+09,NULL,NULL,0,1,0,1,0,1107775760);
INSERT INTO "events" VALUES('ada',17,17,'more-6','agent_started',3,'{"run":6}',1.79569643599140453343e+09,NULL,NULL,0,1,0,1,0,3565905673);
INSERT INTO "events" VALUES('ada',18,18,'more-7','agent_started',3,'{"run":7}',1.79569643599953818321e+09,NULL,NULL,0,1,0,1,0,38070278);
INSERT INTO "events" VALUES('ada',19,19,'more-8','agent_started',3,'{"run":8}',1.79569643600747871391e+09,NULL,NULL,0,1,0,1,0,2969189867);
INSERT INTO "events" VALUES('ada',20,20,'more-9','agent_started',3,'{"run":9}',1.79569643601082277301e+09,NULL,NULL,0,1,0,1,0,1543932602);
INSERT INTO "events" VALUES('ada',21,21,'more-10','agent_started',3,'{"run":10}',1.79569643601464295386e+09,NULL,NULL,0,1,0,1,0,827251392);
INSERT INTO "events" VALUES('ada',22,22,'more-11','agent_started',3,'{"run":11}',1.7956964360234923362e+09,NULL,NULL,0,1,0,1,0,2504004331);
INSERT INTO "events" VALUES('bob',1,1,'pslfpC7c-7','progress',1,'{"share":0.5}',1.79569643603151965138e+09,1.79569661603151965135e+09,'bar',0,0,0,0,0,2981881471);
INSERT INTO "events" VALUES('bob',2,2,'pslfpC7c-8','agent_thinking',3,'null',1.79569643603155541418e+09,NULL,NULL,0,1,0,0,0,437024141);
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
CREATE TABLE revoked (           -- users whose credentials are taken only if they were issued later
  user      TEXT PRIMARY KEY,
  since     REAL NOT NULL,       -- later than this
  until     REAL NOT NULL        -- and after this, all are taken
) WITHOUT ROWID;
INSERT INTO "revoked" VALUES('eve',1796436028.5,1796439628.5);
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
INSERT INTO "sessions" VALUES('ada','73L7CAQ0inH9otD23SzmW74L',0,2,'[]',1.79569643561838269236e+09,1.79569643594423937796e+09);
CREATE TABLE users (             -- one row a user: the log as a whole
  user      TEXT PRIMARY KEY,
  epoch     TEXT NOT NULL,
  head      INTEGER NOT NULL,    -- the newest seq that is accounted for
  reserved  INTEGER NOT NULL,    -- seqs up to here may have been shown, and are given to no other event
  confirmed INTEGER NOT NULL,    -- everything up to here is confirmed, or gone
  due       REAL,                -- when something expires next, as all times in seconds since 1970
  partial   INTEGER NOT NULL,    -- events that are not critical are not written
  gone      TEXT                 -- what was lost: [[first, last, reason, {type: count}, critical], …]
, rest      INTEGER NOT NULL DEFAULT 0 /* events from this seq on are not in memory yet; 0 where all are */) WITHOUT ROWID;
INSERT INTO "users" VALUES('ada','Fqt4Sg-Xpryi101XtACcRtA-',22,22,2,1.79569661561864209178e+09,0,'[[4, 9, "evicted", {"note": 6}, 0]]',17);
INSERT INTO "users" VALUES('bob','6DBc6KyTj6A_yIrEZLZT2ddq',2,2,0,1.79569661603152084345e+09,0,'[]',0);
CREATE INDEX revoked_until ON revoked (until);
COMMIT;
