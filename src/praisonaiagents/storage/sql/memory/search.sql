-- What live items can be found by. Not numbered: it is derived from the items, and missing where SQLite has no FTS5.
-- `place` is one token made from the scope, so that a search does not wade through the words of other users.
CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5 (place, terms, detail = none, tokenize = 'ascii');
