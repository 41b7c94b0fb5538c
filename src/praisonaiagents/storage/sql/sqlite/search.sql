-- What messages can be found by. Not numbered: it is derived from the messages, and missing where SQLite has no FTS5.
-- A row's number is log * 4294967296 + number; its tokens are made by the package, one for the user and then those of the text.
-- The text is not kept a second time (content=''), nor where in it a token stands: a query asks for tokens, never for
-- phrases. The tokeniser only has to split at spaces.
CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5 (
    tokens, content = '', detail = none, columnsize = 0, tokenize = 'ascii'
);
