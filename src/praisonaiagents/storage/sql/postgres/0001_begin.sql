-- Sessions, their logs, and the functions that do a whole call in one round trip.
--
-- {schema} stands for the quoted name of the schema that everything lies in, {literal} for the same in a string. Nothing here depends on a setting of the
-- connection (search_path and the like), so that PgBouncer may give every transaction another one.
--
-- A session shows the end of one log. A log holds messages numbered from where its base ends, and goes back to the messages
-- of its base: that is how forks share what they have in common. What no session and no pin shows any more is deleted by
-- the call that let go of it.

create table {schema}.version (
    number integer primary key,
    file text not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table {schema}.version is 'Which files of SQL made this schema what it is.';
comment on column {schema}.version.number is 'The greatest is the version of the schema.';
comment on column {schema}.version.file is 'The name of the file.';
comment on column {schema}.version.applied_at is 'When it was applied.';

create table {schema}.log (
    id bigint generated always as identity primary key,
    base bigint references {schema}.log,
    base_length bigint,
    check ((base is null) = (base_length is null))
);
create index on {schema}.log (base) where base is not null;

create sequence {schema}.change;
comment on sequence {schema}.change is 'Counts the changes of sessions. The session changed last may go on without a new number.';

create table {schema}.session (
    id bigint generated always as identity primary key,
    user_id text collate "C" not null,
    session_id text collate "C" not null,
    log bigint not null references {schema}.log,
    first bigint not null,
    start bigint not null,
    length bigint not null,
    revision bigint not null default 0,
    change bigint not null default nextval('{literal}.change'),
    created_at timestamptz not null,
    updated_at timestamptz not null default clock_timestamp(),
    agent_name json,
    metadata json not null,
    state json not null,
    extra json not null,
    unique (session_id, user_id),
    check (0 <= first and first <= start and start <= length)
) with (fillfactor = 70);  -- room beside a row for its next version, which then needs no new index entries

-- Expressions, here and of messages, so that nobody who looks for one row by its key is led through all rows of the user, or
-- of the log: to the planner of an empty table, which is remembered, the one is as good as the other.
create index on {schema}.session ((user_id || ''), change);
create index on {schema}.session (change);
create index on {schema}.session (log);

create table {schema}.pin (
    session bigint not null references {schema}.session on delete cascade,
    position integer not null,
    name json not null,
    log bigint not null references {schema}.log,
    start bigint not null,
    length bigint not null,
    info json not null,
    primary key (session, position),
    check (0 <= start and start <= length)
);
create index on {schema}.pin (log);

create table {schema}.message (
    log bigint not null,
    number bigint not null,
    id text collate "C" not null,
    line json not null,
    words tsvector not null,
    stored_at timestamptz not null default clock_timestamp(),
    primary key (log, number)
);
create index on {schema}.message ((log + 0), id);
create index on {schema}.message using gin (words);

comment on table {schema}.log is
    'Append-only logs of messages. Forking a session, or taking it back, makes a log that begins with messages of another one.';
comment on column {schema}.log.id is 'Never used again, also when the log is gone.';
comment on column {schema}.log.base is 'The log whose first messages are also the first of this one; null if there are none.';
comment on column {schema}.log.base_length is 'How many: messages with lower numbers are found in the base.';

comment on table {schema}.session is 'One row per session: what it is, and which part of which log it shows.';
comment on column {schema}.session.id is 'Its number inside this database.';
comment on column {schema}.session.user_id is 'Whose session it is. Two users with one session_id have two sessions.';
comment on column {schema}.session.session_id is 'The name the user gave it.';
comment on column {schema}.session.log is 'The log that it shows and appends to. No two sessions have the same one.';
comment on column {schema}.session.first is 'Number of its oldest message that is kept. Up to start they are its archive.';
comment on column {schema}.session.start is 'Number of its first visible message.';
comment on column {schema}.session.length is 'Number that the next message gets.';
comment on column {schema}.session.revision is 'Counts changes of this row other than appends.';
comment on column {schema}.session.change is 'Grows with every change of any session: the order in which they were changed.';
comment on column {schema}.session.created_at is
    'When it was made, by the clock of the program or, if it named no time, of this server.';
comment on column {schema}.session.updated_at is 'When it was changed last, by the clock of this server.';
comment on column {schema}.session.agent_name is 'Which agent works in it, as JSON text, which can hold any character.';
comment on column {schema}.session.metadata is 'Title, tags and the like.';
comment on column {schema}.session.state is 'What the program keeps with the session.';
comment on column {schema}.session.extra is 'Other fields of the session, of newer versions and other programs.';

comment on table {schema}.pin is 'Earlier states that a session holds on to by name (snapshots, undo). What they show is kept.';
comment on column {schema}.pin.session is 'session.id of the session that holds it.';
comment on column {schema}.pin.position is 'Its place among the session''s pins.';
comment on column {schema}.pin.name is 'Its name, as JSON text, which can hold any character.';
comment on column {schema}.pin.log is 'The log that it shows a part of.';
comment on column {schema}.pin.start is 'Number of the first message that it shows.';
comment on column {schema}.pin.length is 'Number of the first message after those that it shows.';
comment on column {schema}.pin.info is 'Label, time and the like.';

comment on table {schema}.message is 'One row per message. A message that several sessions share is stored once.';
comment on column {schema}.message.log is 'The log that it lies in.';
comment on column {schema}.message.number is 'Its number in the log and in every session that shows it.';
comment on column {schema}.message.id is
    'Its id as it stands in JSON, without the quotes; for an id of more than 200 bytes "\sha256:" and its hash.';
comment on column {schema}.message.line is 'The message: role, content, tool calls, ...; exactly as it was encoded.';
comment on column {schema}.message.words is 'What it is found by: its words, folded, and "@" with a hash of its user.';
comment on column {schema}.message.stored_at is 'When it was stored, by the clock of this server.';

create view {schema}.record as
select s.id, s.user_id, s.session_id, s.log, s.first, s.start, s.length, s.revision, s.change,
    extract(epoch from s.created_at)::float8 as created_at, extract(epoch from s.updated_at)::float8 as updated_at,
    s.agent_name, s.metadata, s.state, s.extra,
    (
        select json_agg(json_build_array(p.name, p.log, p.start, p.length, p.info) order by p.position)
        from {schema}.pin p where p.session = s.id
    ) as pins
from {schema}.session s;
comment on view {schema}.record is 'Sessions with their pins, as the program reads them.';

-- Functions. What they have in common: enable_seqscan is off because a connection keeps the plans of their statements, and
-- one that was made while a table was small would read all of it when it has grown.

create function {schema}.durable() returns void language plpgsql as $fn$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $fn$;
comment on function {schema}.durable is 'Makes this transaction survive a loss of power where the server does not do so anyway.';

create function {schema}.open_session(
    in_user text, in_session text, in_created float8, in_agent json, in_metadata json, in_state json, in_extra json,
    in_base bigint, in_base_length bigint, in_start bigint, in_length bigint, in_durable boolean
) returns table (made boolean, session {schema}.record) language plpgsql set enable_seqscan = off as $fn$
declare
    new_log bigint;
    new_session bigint;
begin
    if in_durable then
        perform {schema}.durable();
    end if;
    loop
        return query select false, r from {schema}.record r where r.user_id = in_user and r.session_id = in_session;
        exit when found;
        insert into {schema}.log (base, base_length) values (in_base, in_base_length) returning id into new_log;
        insert into {schema}.session
            (user_id, session_id, log, first, start, length, created_at, agent_name, metadata, state, extra)
        values (
            in_user, in_session, new_log, in_start, in_start, in_length,
            case when in_created = 0 then clock_timestamp() else to_timestamp(in_created) end,
            in_agent, in_metadata, in_state, in_extra
        )
        on conflict (session_id, user_id) do nothing
        returning id into new_session;
        if found then
            return query select true, r from {schema}.record r where r.id = new_session;
            exit;
        end if;
        delete from {schema}.log where id = new_log;  -- somebody else was faster
    end loop;
end $fn$;
comment on function {schema}.open_session is
    'The session, made if it is not there: empty, or with the messages in_start to in_length that are seen from log in_base.';

create function {schema}.find_session(in_user text, in_session text) returns setof {schema}.record
language plpgsql stable set enable_seqscan = off as $fn$
begin
    return query select r.* from {schema}.record r where r.user_id = in_user and r.session_id = in_session;
end $fn$;
comment on function {schema}.find_session is 'The session, if it is there.';

create function {schema}.list_sessions(in_user text, in_before bigint, in_limit bigint) returns setof {schema}.record
language plpgsql stable set enable_seqscan = off as $fn$
begin
    if in_user is null then
        return query select r.* from {schema}.record r where r.change < in_before order by r.change desc limit in_limit;
    else
        return query select r.* from {schema}.record r
            where r.user_id || '' = in_user and r.change < in_before order by r.change desc limit in_limit;
    end if;
end $fn$;
comment on function {schema}.list_sessions is
    'Sessions of a user (null: of all users), the one changed last first, that were changed before change in_before.';

create function {schema}.lock_session(in_user text, in_session text, in_frees bigint, in_durable boolean)
returns setof {schema}.record language plpgsql set enable_seqscan = off as $fn$
begin
    if in_durable then
        perform {schema}.durable();
    end if;
    if in_frees is not null then
        perform pg_advisory_xact_lock(in_frees);
    end if;
    perform from {schema}.session s where s.user_id = in_user and s.session_id = in_session for update;
    return query select r.* from {schema}.record r where r.user_id = in_user and r.session_id = in_session;
end $fn$;
comment on function {schema}.lock_session is
    'The session, which nobody else can change until this transaction ends. in_frees: a number that stands for the user, whose '
    'other calls that delete messages wait too; so what two calls let go of at once is not spared by both.';

create function {schema}.save_session(
    in_id bigint, in_log bigint, in_first bigint, in_start bigint, in_length bigint, in_revision bigint,
    in_agent json, in_metadata json, in_state json, in_extra json
) returns setof {schema}.record language plpgsql set enable_seqscan = off as $fn$
begin
    update {schema}.session set
        log = in_log, first = in_first, start = in_start, length = in_length, revision = in_revision,
        change = nextval('{literal}.change'),
        updated_at = clock_timestamp(), agent_name = in_agent, metadata = in_metadata, state = in_state, extra = in_extra
    where id = in_id;
    return query select r.* from {schema}.record r where r.id = in_id;
end $fn$;
comment on function {schema}.save_session is 'Changes a session that is locked, and returns it.';

-- What letting go of messages takes. A view is a part of a log that a session or a pin shows: log, start, stop.

create function {schema}.chain(in_log bigint, in_length bigint)
returns table (id bigint, base bigint, base_length bigint) language sql stable set enable_seqscan = off set jit = off as $fn$
    with recursive up (id, base, base_length) as (
        select l.id, l.base, l.base_length from {schema}.log l where l.id = in_log
        union all
        select l.id, l.base, l.base_length from up join {schema}.log l on l.id = up.base where in_length <= up.base_length
    )
    select up.id, up.base, up.base_length from up
$fn$;
comment on function {schema}.chain is 'The log, and those it goes back to, up to the one that holds message in_length - 1.';

create function {schema}.is_shown(in_log bigint, in_start bigint, in_stop bigint)
returns boolean language sql stable as $fn$
    select exists (
        select from {schema}.session s where s.log = in_log and s.first <= in_start and in_stop <= s.length
    ) or exists (
        select from {schema}.pin p where p.log = in_log and p.start <= in_start and in_stop <= p.length
    ) or exists (
        select from {schema}.log l join {schema}.session s on s.log = l.id
        where l.base = in_log and in_stop <= l.base_length and s.first <= in_start and s.first < l.base_length
    )
$fn$;
comment on function {schema}.is_shown is
    'True if one session or pin of the same log shows all of a view, or a session of a log that begins with it.';

create function {schema}.around(in_logs bigint[], in_starts bigint[], in_stops bigint[])
returns table (id bigint, base bigint, base_length bigint, length bigint)
language sql stable set enable_seqscan = off set jit = off as $fn$
    with recursive up (id, base, base_length, start, stop) as (
        select l.id, l.base, l.base_length, gone.start, gone.stop
        from unnest(in_logs, in_starts, in_stops) as gone (log, start, stop) join {schema}.log l on l.id = gone.log
        where not {schema}.is_shown(l.id, gone.start, gone.stop)
        union
        select l.id, l.base, l.base_length, up.start, least(up.stop, up.base_length)
        from up join {schema}.log l on l.id = up.base
        where up.start < up.base_length and not {schema}.is_shown(l.id, up.start, least(up.stop, up.base_length))
    ), around (id) as (
        select up.id from up
        union
        select l.id from around join {schema}.log l on l.base = around.id
    )
    select l.id, l.base, l.base_length, (select max(m.number) + 1 from {schema}.message m where m.log = l.id)
    from around join {schema}.log l on l.id = around.id
$fn$;
comment on function {schema}.around is
    'The logs whose messages may be let go of with some views, and all logs that begin with messages of those, with their '
    'lengths (null: no messages). It goes back from log to log until something else shows all that is left.';

create function {schema}.views(in_logs bigint[])
returns table (log bigint, start bigint, stop bigint) language sql stable set enable_seqscan = off as $fn$
    select s.log, s.first, s.length from {schema}.session s where s.log = any (in_logs)
    union all
    select p.log, p.start, p.length from {schema}.pin p where p.log = any (in_logs)
$fn$;
comment on function {schema}.views is 'What sessions and pins show of some logs.';

create function {schema}.delete_messages(in_logs bigint[], in_starts bigint[], in_stops bigint[])
returns bigint language sql set enable_seqscan = off as $fn$
    with gone as (
        delete from {schema}.message m using unnest(in_logs, in_starts, in_stops) as part (log, start, stop)
        where m.log = part.log and part.start <= m.number and m.number < part.stop
        returning octet_length(m.line::text) as bytes
    )
    select coalesce(sum(gone.bytes), 0)::bigint from gone
$fn$;
comment on function {schema}.delete_messages is 'Deletes parts of logs. Returns how many bytes of lines that were.';

create function {schema}.delete_logs(in_logs bigint[]) returns void language sql set enable_seqscan = off as $fn$
    update {schema}.log set base = null, base_length = null where base = any (in_logs);
    delete from {schema}.log where id = any (in_logs);
$fn$;
comment on function {schema}.delete_logs is
    'Deletes logs that nothing shows any more. What began with one of them, for nothing, stands alone then.';

-- pg_sequence_last_value is asked for each row, and so again when the row had to be waited for; a subquery would not be.
create function {schema}.append_one(
    in_user text, in_session text, in_id text, in_line json, in_words text, in_expected bigint, in_durable boolean
) returns text language plpgsql set enable_seqscan = off as $fn$
declare
    s record;
begin
    if in_durable then
        perform {schema}.durable();
    end if;
    update {schema}.session t
        set length = t.length + 1, updated_at = clock_timestamp(),
            change = case when t.change = pg_sequence_last_value('{literal}.change') then t.change else nextval('{literal}.change') end
        where t.user_id = in_user and t.session_id = in_session and (in_expected is null or in_expected = t.length)
        returning t.log, t.start, t.length into s;
    if not found then
        return null;
    end if;
    insert into {schema}.message (log, number, id, line, words)
        values (s.log, s.length - 1, in_id, in_line, array_to_tsvector(string_to_array(in_words, ' ')));
    return '["stored",' || s.start || ',' || s.length || ']';
end $fn$;
comment on function {schema}.append_one is
    'What append does in nearly all cases, without arrays, which take their time: one message whose id is new. Null if there '
    'is no such session, or its length is not in_expected.';

create function {schema}.append(
    in_user text, in_session text, in_ids text[], in_lines text[], in_words text[],
    in_given text[], in_alike text[], in_expected bigint, in_durable boolean
) returns json language plpgsql set enable_seqscan = off as $fn$
declare
    s record;
    stored record;
    known text[];
    differing text[];
    part_log bigint;
    part_stop bigint;
    new integer;
begin
    if in_durable then
        perform {schema}.durable();
    end if;

    if cardinality(in_given) > 0 then
        select t.log, t.first, t.length into s from {schema}.session t
            where t.user_id = in_user and t.session_id = in_session for no key update;
        if not found then
            return '["missing", 0, 0]';
        end if;
        part_log := s.log;
        part_stop := s.length;
        while part_log is not null loop
            for stored in
                select m.id, m.line::text as line from {schema}.message m
                where m.log + 0 = part_log and m.id = any (in_given) and m.number >= s.first and m.number < part_stop
            loop
                known := known || stored.id;
                if stored.line is distinct from in_lines[array_position(in_ids, stored.id)]
                    and stored.line is distinct from in_alike[array_position(in_ids, stored.id)]
                then
                    differing := differing || stored.line;
                end if;
            end loop;
            select l.base, l.base_length into part_log, part_stop from {schema}.log l
                where l.id = part_log and l.base_length > s.first;
        end loop;
        if differing is not null then
            return json_build_array('differs', 0, 0, to_json(differing));
        end if;
        if known is not null then
            select array_agg(m.id order by m.place), array_agg(m.line order by m.place), array_agg(m.words order by m.place)
                into in_ids, in_lines, in_words
                from unnest(in_ids, in_lines, in_words) with ordinality as m (id, line, words, place)
                where m.id <> all (known);
        end if;
    end if;

    new := coalesce(cardinality(in_ids), 0);
    if new > 0 then
        update {schema}.session t
            set length = t.length + new, updated_at = clock_timestamp(),
                change = case when t.change = pg_sequence_last_value('{literal}.change') then t.change else nextval('{literal}.change') end
            where t.user_id = in_user and t.session_id = in_session and (in_expected is null or in_expected = t.length)
            returning t.log, t.start, t.length into s;
        if found then
            insert into {schema}.message (log, number, id, line, words)
                select s.log, s.length - new + m.place - 1, m.id, m.line::json,
                    array_to_tsvector(string_to_array(m.words, ' '))
                from unnest(in_ids, in_lines, in_words) with ordinality as m (id, line, words, place);
            return '["stored",' || s.start || ',' || s.length || ']';
        end if;
    end if;
    select t.start, t.length into s from {schema}.session t where t.user_id = in_user and t.session_id = in_session;
    if not found then
        return '["missing",0,0]';
    end if;
    return json_build_array(case when new > 0 then 'conflict' else 'stored' end, s.start, s.length);
end $fn$;
comment on function {schema}.append is
    'Appends messages to a session, all or none; those stored already are left out. in_words: what each is found by, with '
    'blanks between. in_given: ids that may be stored. Returns ["stored", start, length of the session]; or, where nothing was '
    'stored, "missing", "conflict" with the length, or "differs" and the lines that are stored under one of the ids and are '
    'neither the new one nor the one in in_alike. It returns one value, because a row costs a tenth more.';

create function {schema}.read(in_user text, in_session text, in_start bigint, in_stop bigint)
returns table (number bigint, line json) language plpgsql stable set enable_seqscan = off as $fn$
declare
    s record;
    part_log bigint;
    low bigint;
    high bigint;
    missing bigint;
    found_now bigint;
begin
    select t.log, t.first, t.start, t.length into s from {schema}.session t
        where t.user_id = in_user and t.session_id = in_session;
    if not found then
        return;
    end if;
    low := case
        when in_start is null then s.start
        when in_start < 0 then greatest(s.start, s.length + in_start)
        else least(greatest(s.first, in_start), s.length)
    end;
    high := greatest(low, least(in_stop, s.length));
    if low = high then
        number := low;
        return next;
        return;
    end if;
    part_log := s.log;
    missing := high - low;
    loop
        return query select m.number, m.line from {schema}.message m
            where m.log = part_log and m.number >= low and m.number < high order by m.number;
        get diagnostics found_now = row_count;
        missing := missing - found_now;
        exit when missing <= 0;
        select l.base, least(high, l.base_length) into part_log, high from {schema}.log l
            where l.id = part_log and l.base_length > low;
        exit when not found;
    end loop;
end $fn$;
comment on function {schema}.read is
    'Messages of a session, log by log, the newest log first. Where there are none, a row without a message holds the number '
    'where they would begin. in_start: null for the first visible message, negative for so many from the end. in_stop: null '
    'for the end.';

create function {schema}.search(in_user text, in_query tsquery, in_limit bigint)
returns table (user_id text, session_id text, number bigint, line json)
language sql stable set enable_seqscan = off set jit = off as $fn$
    select seen.user_id, seen.session_id, found.number, found.line
    from (
        select m.log, m.number, m.line, m.stored_at, ts_rank(m.words, in_query, 1) as rank
        from {schema}.message m where m.words @@ in_query
        order by 5 desc, 4 desc, 2 desc
    ) found
    cross join lateral (
        (
            select s.user_id, s.session_id from {schema}.session s
            where s.log = found.log and s.start <= found.number and found.number < s.length
                and (in_user is null or s.user_id = in_user)
        )
        union all
        (
            with recursive down (id) as (
                select l.id from {schema}.log l where l.base = found.log and found.number < l.base_length
                union all
                select l.id from down join {schema}.log l on l.base = down.id and found.number < l.base_length
            )
            select s.user_id, s.session_id from down join {schema}.session s on s.log = down.id
            where s.start <= found.number and (in_user is null or s.user_id = in_user)
        )
        limit 1
    ) seen
    order by found.rank desc, found.stored_at desc, found.number desc
    limit in_limit
$fn$;
comment on function {schema}.search is
    'Messages that match and that a session shows, each in one of them: the best first, of equal ones the newest.';

-- For people. A NUL, which JSON can hold and text cannot, is shown as U+FFFD.

create function {schema}.shown(in_value json) returns json language sql immutable as $fn$
    select replace(in_value::text, '\u0000', '\ufffd')::json
$fn$;
comment on function {schema}.shown is 'The value without NULs, so that its parts can be taken as text.';

create view {schema}.sessions as
select s.user_id, s.session_id,
    {schema}.shown(s.metadata) ->> 'title' as title, {schema}.shown(s.agent_name) #>> '{}' as agent_name,
    s.length - s.start as messages, s.start - s.first as archived, s.created_at, s.updated_at
from {schema}.session s;
comment on view {schema}.sessions is 'For people: one row per session. Newest first: order by updated_at desc.';

create view {schema}.messages as
select s.user_id, s.session_id, m.number, m.number >= s.start as visible, t.line ->> 'role' as role,
    t.line ->> 'content' as content, m.line
from {schema}.session s
    cross join lateral {schema}.read(s.user_id, s.session_id, 0, null) m
    cross join lateral (select {schema}.shown(m.line) as line) t
where m.line is not null;
comment on view {schema}.messages is 'For people: the history of every session, in which shared messages appear once each. '
    'Ask for one: where user_id = ... and session_id = ... order by number.';
