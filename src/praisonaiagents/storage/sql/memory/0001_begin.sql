-- Memories. `session_id` is NULL for what belongs to the user and not to one session.
CREATE TABLE item (
    n INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT,
    shelf TEXT NOT NULL,
    slot TEXT,
    live INTEGER NOT NULL,
    updated_at REAL NOT NULL,
    body BLOB NOT NULL, -- the item as JSON
    model TEXT, -- of the embedding
    vector BLOB, -- 32-bit floats, little endian
    UNIQUE (user_id, id)
);
CREATE INDEX item_by_scope ON item (user_id, shelf, session_id, updated_at, n);
CREATE INDEX item_by_slot ON item (user_id, slot) WHERE slot IS NOT NULL;
