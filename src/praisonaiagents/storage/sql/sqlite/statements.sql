-- Sessions

-- name: find
SELECT n, log, start, first, length, change = (SELECT max(change) FROM session) AS is_newest
FROM session WHERE session_id = ? AND user_id = ?;

-- name: record
SELECT * FROM record WHERE session_id = ? AND user_id = ?;

-- name: records
-- The newest ones first, of all users.
SELECT * FROM record WHERE change < ? ORDER BY change DESC LIMIT ?;

-- name: records_of_user
SELECT * FROM record WHERE user_id = ? AND change < ? ORDER BY change DESC LIMIT ?;

-- name: owners
SELECT user_id FROM session WHERE session_id = ?;

-- name: add_session
INSERT INTO session (user_id, session_id, log, first, start, length, revision, change, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, 0, (SELECT coalesce(max(change), 0) FROM session) + 1, ?, ?);

-- name: add_detail
INSERT INTO detail (session, agent_name, metadata, state, extra) VALUES (?, ?, ?, ?, ?);

-- name: add_missing_detail
INSERT OR IGNORE INTO detail (session, metadata, state, extra) VALUES (?, '{}', '{}', '{}');

-- name: set_agent_name
UPDATE detail SET agent_name = ? WHERE session = ?;

-- name: set_metadata
UPDATE detail SET metadata = ? WHERE session = ?;

-- name: set_state
UPDATE detail SET state = ? WHERE session = ?;

-- name: set_extra
UPDATE detail SET extra = ? WHERE session = ?;

-- name: grow_newest
-- The session that was changed last stays it, so that two indexes need not be written.
UPDATE session SET length = ?, updated_at = ? WHERE n = ?;

-- name: grow
UPDATE session SET length = ?, updated_at = ?, change = (SELECT max(change) FROM session) + 1 WHERE n = ?;

-- name: change
UPDATE session
SET log = ?, first = ?, start = ?, length = ?, revision = ?, change = (SELECT max(change) FROM session) + 1, updated_at = ?
WHERE n = ?;

-- name: drop_archive
UPDATE session SET first = start WHERE n = ?;

-- name: delete_session
DELETE FROM session WHERE n = ?;

-- Pins

-- name: pins
SELECT name, log, start, length, info FROM pin WHERE session = ? ORDER BY n;

-- name: add_pin
INSERT INTO pin (session, name, log, start, length, info) VALUES (?, ?, ?, ?, ?, ?);

-- name: delete_pins
DELETE FROM pin WHERE session = ?;

-- Messages

-- name: add_message
INSERT INTO message (log, number, id, body) VALUES (?, ?, ?, CAST(? AS TEXT));

-- name: bodies
-- Of messages :start to :stop, as bytes, whatever they are: what is no UTF-8 could not be read as text.
SELECT CAST(body AS BLOB) FROM message WHERE log = ? AND ? <= number AND number < ? ORDER BY number;

-- name: numbered_bodies
SELECT log << 32 | number, CAST(body AS BLOB) FROM message WHERE log = ? AND ? <= number AND number < ? ORDER BY number LIMIT ?;

-- name: identify
INSERT OR IGNORE INTO message_id SELECT log, id, number FROM message WHERE log = ? AND ? <= number AND number < ?;

-- name: identified
UPDATE log SET identified = ? WHERE n = ?;

-- name: body_of_id
SELECT CAST(body AS BLOB) FROM message_id JOIN message USING (log, number)
WHERE log = ? AND message_id.id = ? AND ? <= number AND number < ? ORDER BY number LIMIT 1;

-- name: size
SELECT coalesce(sum(length(body)), 0) FROM message WHERE log = ? AND ? <= number AND number < ?;

-- name: forget_ids
-- By id, since there may be many more of them in the log. Ids of rows that are damaged stay, and lead nowhere.
DELETE FROM message_id WHERE log = :log AND :start <= number AND number < :stop AND id IN (
    SELECT id FROM message WHERE log = :log AND :start <= number AND number < :stop
);

-- name: forget_log
DELETE FROM message_id WHERE log = ?;

-- name: free
DELETE FROM message WHERE log = ? AND ? <= number AND number < ?;

-- name: set_aside
INSERT INTO set_aside (log, number, id, body, at) SELECT log, number, id, body, ? FROM message WHERE log = ? AND number = ?;

-- Logs

-- name: add_log
INSERT INTO log (base, first, identified, searchable) VALUES (?, ?, ?, ?);

-- name: log
SELECT base, first, identified, searchable FROM log WHERE n = ?;

-- name: parts
-- Where messages :start to :stop of a history that ends in a log lie: (log, start, stop), the newest first.
WITH RECURSIVE part (log, base, first, stop) AS (
    SELECT n, base, first, :stop FROM log WHERE n = :log
    UNION ALL
    SELECT log.n, log.base, log.first, min(part.stop, part.first)
    FROM part JOIN log ON log.n = part.base
    WHERE :start < part.first
)
SELECT log, max(first, :start), stop FROM part WHERE stop > max(first, :start);

-- name: holder
-- The oldest log that still holds all of the first :length messages, as seen from a log. A base is older than its logs.
WITH RECURSIVE holder (n, base, first) AS (
    SELECT n, base, first FROM log WHERE n = :log
    UNION ALL
    SELECT log.n, log.base, log.first FROM holder JOIN log ON log.n = holder.base WHERE :length <= holder.first
)
SELECT min(n) FROM holder;

-- name: shown
-- (start, stop) of what sessions and pins show, that look at a log itself.
SELECT first, length FROM session WHERE log = :log
UNION ALL
SELECT start, length FROM pin WHERE log = :log;

-- name: based_on
SELECT n, min(first, ?) FROM log WHERE base = ?;

-- name: detach
UPDATE log SET base = NULL WHERE n = ?;

-- name: delete_log
DELETE FROM log WHERE n = ?;

-- Search

-- name: hits
-- The newest log first, and its newest message first.
SELECT rowid FROM search WHERE search MATCH ? ORDER BY rowid DESC;

-- name: body
SELECT CAST(body AS BLOB) FROM message WHERE log = ? AND number = ?;

-- name: showing
-- A session that shows a message of a log: its own, or one that is based on it, at the message or after it.
WITH RECURSIVE showing (log) AS (
    SELECT :log
    UNION ALL
    SELECT log.n FROM showing JOIN log ON log.base = showing.log WHERE :number < log.first
    LIMIT 10000
)
SELECT user_id, session_id FROM showing CROSS JOIN session ON session.log = showing.log
WHERE start <= :number AND :number < length LIMIT 1;

-- name: unsearched
-- Sessions with something new for search, in the order of their changes, of all users. The newest session may go on
-- without a change, so the last one that search knows is looked at once more.
SELECT user_id, log, start, length, change FROM session
WHERE change >= (SELECT coalesce(max(change), 0) FROM searched WHERE user_id = '')
AND (change > (SELECT coalesce(max(change), 0) FROM searched WHERE user_id = '')
    OR length > (SELECT searchable FROM log WHERE n = session.log))
ORDER BY change LIMIT :limit;

-- name: unsearched_of_user
SELECT user_id, log, start, length, change FROM session
WHERE user_id = :user AND change >= (SELECT coalesce(max(change), 0) FROM searched WHERE user_id IN (:user, ''))
AND (change > (SELECT coalesce(max(change), 0) FROM searched WHERE user_id IN (:user, ''))
    OR length > (SELECT searchable FROM log WHERE n = session.log))
ORDER BY change LIMIT :limit;

-- name: searched_to
INSERT INTO searched (user_id, change) VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET change = excluded.change;

-- name: searched_before
-- The newest session is gone, so that the next change takes its number again: nobody may seem to have come that far.
UPDATE searched SET change = :newest WHERE change > :newest;

-- name: newest_change
SELECT coalesce(max(change), 0) FROM session;

-- name: forget_user
DELETE FROM searched WHERE user_id = :user AND NOT EXISTS (SELECT 1 FROM session WHERE user_id = :user);

-- name: searchable_from
UPDATE log SET searchable = ? WHERE n = ?;

-- name: add_to_search
INSERT INTO search (rowid, tokens) VALUES (?, ?);

-- name: remove_from_search
INSERT INTO search (search, rowid, tokens) VALUES ('delete', ?, ?);
