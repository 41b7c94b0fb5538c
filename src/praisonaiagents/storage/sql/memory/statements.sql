-- name: put
INSERT INTO item (user_id, id, session_id, shelf, slot, live, updated_at, body, model, vector)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (user_id, id) DO UPDATE SET
    session_id = excluded.session_id, shelf = excluded.shelf, slot = excluded.slot, live = excluded.live,
    updated_at = excluded.updated_at, body = excluded.body, model = excluded.model, vector = excluded.vector
RETURNING n;
-- name: get
SELECT body FROM item WHERE user_id = ? AND id = ?;
-- name: in_slot
SELECT body FROM item WHERE user_id = ? AND session_id IS ? AND shelf = ? AND slot = ? AND live ORDER BY updated_at DESC, n DESC;
-- name: list
SELECT updated_at, n, body FROM item
WHERE user_id = ? AND session_id IS ? AND shelf = ? AND (updated_at, n) < (?, ?) AND live >= ?
ORDER BY updated_at DESC, n DESC LIMIT ?;
-- name: index
INSERT INTO search (rowid, place, terms) VALUES (?, ?, ?);
-- name: unindex
DELETE FROM search WHERE rowid = ?;
-- name: match
-- The word of the scope only narrows the search; whose an item is, the item says.
-- CROSS JOIN: the index is asked once. Left to itself, SQLite may ask it for each item of the scope.
SELECT n, terms FROM search CROSS JOIN item ON n = search.rowid
WHERE search MATCH ? AND user_id = ? AND session_id IS ? AND shelf = ? AND live;
-- name: count
SELECT count(*) FROM search WHERE search MATCH ?;
-- name: live
SELECT n, body FROM item WHERE user_id = ? AND session_id IS ? AND shelf = ? AND live;
-- name: vectors
SELECT n, vector FROM item WHERE user_id = ? AND session_id IS ? AND shelf = ? AND live AND model = ?;
-- name: body
SELECT body FROM item WHERE n = ?;
-- name: numbers_of
SELECT n FROM item WHERE user_id = ? AND id = ?;
-- name: numbers_in
SELECT n FROM item WHERE user_id = ? AND session_id IS ? AND shelf = ?;
-- name: numbers_of_user
SELECT n FROM item WHERE user_id = ?;
-- name: delete
DELETE FROM item WHERE n = ?;
