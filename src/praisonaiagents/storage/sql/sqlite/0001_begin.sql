-- A session points to the end of a log of messages. A fork is a new session with a new log that is based on the old one,
-- so it shows the old messages without a copy of them.

CREATE TABLE log (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice
    base       INTEGER REFERENCES log (n),         -- the log that shows the messages before `first`; NULL: there are none
    first      INTEGER NOT NULL,                   -- number of the first message of its own
    identified INTEGER NOT NULL,                   -- number of its first message that message_id does not know yet
    searchable INTEGER NOT NULL                    -- the same of search
);
CREATE INDEX log_base ON log (base) WHERE base IS NOT NULL;

-- In the order of storing: putting rows between others would write some of those anew each time.
CREATE TABLE message (
    n      INTEGER PRIMARY KEY,
    log    INTEGER NOT NULL,
    number INTEGER NOT NULL,                       -- of the message in the log
    id     TEXT NOT NULL,
    body   TEXT NOT NULL                           -- one JSON object: role, content, timestamp, ...
);
CREATE UNIQUE INDEX message_place ON message (log, number);

-- Where a message with an id lies. Rarely asked for, so it is those who ask that bring it up to date.
CREATE TABLE message_id (
    log    INTEGER NOT NULL,
    id     TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (log, id, number)
) WITHOUT ROWID;

CREATE TABLE session (
    n          INTEGER PRIMARY KEY,
    user_id    TEXT NOT NULL,
    session_id TEXT NOT NULL,
    log        INTEGER NOT NULL REFERENCES log (n),
    first      INTEGER NOT NULL,                   -- number of its oldest message that is still there
    start      INTEGER NOT NULL,                   -- number of its first visible message; those before are archived
    length     INTEGER NOT NULL,                   -- number of the message that comes next
    revision   INTEGER NOT NULL,                   -- changes of the record
    change     INTEGER NOT NULL,                   -- greater than that of every session that was changed before
    created_at REAL NOT NULL,                      -- seconds since 1970
    updated_at REAL NOT NULL,
    CHECK (0 <= first AND first <= start AND start <= length)
);
CREATE UNIQUE INDEX session_key ON session (session_id, user_id);
CREATE UNIQUE INDEX session_change ON session (change);
CREATE UNIQUE INDEX session_log ON session (log);
CREATE INDEX session_user ON session (user_id, change);

-- What changes rarely and may be large, apart from what changes with every message.
CREATE TABLE detail (
    session    INTEGER PRIMARY KEY REFERENCES session (n) ON DELETE CASCADE,
    agent_name TEXT,
    metadata   TEXT NOT NULL,                      -- JSON objects
    state      TEXT NOT NULL,
    extra      TEXT NOT NULL
);

-- Other histories that a session holds on to: messages `start` to `length` (exclusive) of a log.
CREATE TABLE pin (
    n       INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session (n) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    log     INTEGER NOT NULL REFERENCES log (n),
    start   INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    info    TEXT NOT NULL,                         -- a JSON object
    UNIQUE (session, name)
);
CREATE INDEX pin_log ON pin (log);

-- How far search has come: it knows what was in the user's sessions up to this change. '' stands for all users.
CREATE TABLE searched (
    user_id TEXT PRIMARY KEY,
    change  INTEGER NOT NULL
) WITHOUT ROWID;

-- Rows that another program put where a message had to go.
CREATE TABLE set_aside (
    log    INTEGER,
    number INTEGER,
    id,
    body,
    at     REAL NOT NULL                           -- when, in seconds since 1970
);

CREATE VIEW record AS
    SELECT n, first, change, EXISTS (SELECT 1 FROM pin WHERE pin.session = session.n) AS pinned,
        user_id, session_id, created_at, agent_name, metadata, state, extra, start, revision, length, updated_at, log
    FROM session LEFT JOIN detail ON detail.session = session.n;

-- For people: SELECT number, role, content FROM conversation WHERE user_id = 'alice' AND session_id = 's' ORDER BY number.
CREATE VIEW conversation AS
    WITH RECURSIVE part (session, log, start, stop) AS (
        SELECT n, log, start, length FROM session
        UNION ALL
        SELECT session, base, start, first FROM part JOIN log ON log.n = part.log WHERE base IS NOT NULL AND start < first
    )
    SELECT user_id, session_id, number,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.role') END AS role,
        CASE WHEN json_valid(body) THEN json_extract(body, '$.content') END AS content,
        CASE WHEN json_valid(body) THEN datetime(json_extract(body, '$.timestamp'), 'unixepoch') END AS time
    FROM part
    JOIN session ON session.n = part.session
    JOIN message ON message.log = part.log AND part.start <= number AND number < part.stop;
