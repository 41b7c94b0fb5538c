-- What is returned is what was locked. Where the session was looked up by its name twice, one that was made between the two
-- looks was returned without a lock, and what others appended to it meanwhile could be lost.

create or replace function {schema}.lock_session(in_user text, in_session text, in_frees bigint, in_durable boolean)
returns setof {schema}.record language plpgsql set enable_seqscan = off as $fn$
declare
    locked bigint;
begin
    if in_durable then
        perform {schema}.durable();
    end if;
    if in_frees is not null then
        perform pg_advisory_xact_lock(in_frees);
    end if;
    select s.id into locked from {schema}.session s where s.user_id = in_user and s.session_id = in_session for update;
    return query select r.* from {schema}.record r where r.id = locked;
end $fn$;
