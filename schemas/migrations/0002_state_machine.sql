-- The guard of a job's state machine: a trigger refuses every transition that is not a row of
-- job_transition, whoever attempts it. The machine itself is `Job::apply` and the UPDATE statements in
-- coordinator/store.

CREATE TABLE job_transition (
    before job_state NOT NULL,
    after  job_state NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (before, after)
);
COMMENT ON TABLE job_transition IS 'The transitions that exist between states of a job.';
COMMENT ON COLUMN job_transition.before IS 'The state before.';
COMMENT ON COLUMN job_transition.after IS 'The state after.';
COMMENT ON COLUMN job_transition.reason IS 'When the transition happens.';

INSERT INTO job_transition (before, after, reason) VALUES
    ('blocked',   'ready',     'its training job is done'),
    ('blocked',   'failed',    'its training job failed'),
    ('blocked',   'done',      'a result from before it was reopened arrived late'),
    ('blocked',   'cancelled', 'no sweep asks for it any more'),
    ('ready',     'queued',    'it was granted to a worker'),
    ('ready',     'blocked',   'the checkpoints of its training job are missing, which is to be done again'),
    ('ready',     'done',      'a result from an earlier attempt arrived'),
    ('ready',     'failed',    'it cannot be granted: its config cannot be read'),
    ('ready',     'cancelled', 'no sweep asks for it any more'),
    ('queued',    'running',   'its worker began'),
    ('queued',    'done',      'a result arrived before the report of its start'),
    ('queued',    'ready',     'its worker handed it back, declined it, was lost, or failed before it began'),
    ('queued',    'blocked',   'the checkpoints of its training job are missing, which is to be done again'),
    ('queued',    'failed',    'its last attempt failed'),
    ('queued',    'cancelled', 'no sweep asks for it any more'),
    ('running',   'done',      'its result arrived'),
    ('running',   'ready',     'its attempt failed and is to be retried, was handed back, declined, lost or stalled, or its worker was drained'),
    ('running',   'blocked',   'the checkpoints of its training job are missing, which is to be done again'),
    ('running',   'failed',    'its last attempt failed, or too many were lost without progress'),
    ('running',   'cancelled', 'no sweep asks for it any more'),
    ('done',      'ready',     'its checkpoints are missing: it is to be done again'),
    ('failed',    'done',      'a late attempt delivered a result after all'),
    ('failed',    'ready',     'an operator asked for a retry, or its training job was done after all'),
    ('failed',    'blocked',   'an operator asked for a retry, and its training job must run first'),
    ('cancelled', 'ready',     'a sweep asks for it again'),
    ('cancelled', 'blocked',   'a sweep asks for it again, and its training job must run first'),
    ('cancelled', 'done',      'a sweep asks for it again, and its result had arrived meanwhile');

CREATE FUNCTION job_state_changes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM job_transition t WHERE t.before = OLD.state AND t.after = NEW.state
    ) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation',
                  HINT = 'Table job_transition lists the transitions that exist.';
    END IF;
    NEW.changed := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION job_state_changes() IS 'Refuses transitions that are not in job_transition, and records the time of those that are.';

CREATE TRIGGER job_state_changes
    BEFORE UPDATE OF state ON job
    FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION job_state_changes();

-- Table tally counts jobs by state. The statements are planned anew each time (EXECUTE), because what is good for one
-- job is not for a million.

CREATE FUNCTION tally_asked() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'INSERT INTO tally (sweep, kind, method, variant, dataset, config, state, jobs)
             SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.state, count(*)
             FROM asked w JOIN job j ON j.id = w.job
             GROUP BY 1, 2, 3, 4, 5, 6, 7';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tally_asked() IS 'Counts the jobs that a sweep asks for now.';

CREATE TRIGGER tally_asked
    AFTER INSERT ON sweep_job
    REFERENCING NEW TABLE AS asked
    FOR EACH STATEMENT
    EXECUTE FUNCTION tally_asked();

CREATE FUNCTION tally_states() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- Neither an outer join on both sides nor what is behind OFFSET 0 becomes a loop over all pairs of rows, whatever the
    -- planner believes of tables that were never analyzed.
    EXECUTE 'WITH changed AS MATERIALIZED (
                 SELECT n.id, n.kind, n.method, n.variant, n.dataset, n.config, o.state AS was, n.state AS became
                 FROM was o FULL JOIN became n ON n.id = o.id
                 WHERE o.state IS DISTINCT FROM n.state
             )
             INSERT INTO tally (sweep, kind, method, variant, dataset, config, state, jobs)
             SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, c.state, sum(c.jobs)
             FROM changed j
             CROSS JOIN LATERAL (SELECT sweep FROM sweep_job WHERE job = j.id OFFSET 0) w
             CROSS JOIN LATERAL (VALUES (j.was, -1), (j.became, 1)) AS c (state, jobs)
             GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(c.jobs) <> 0';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tally_states() IS 'Counts jobs whose states changed in their new states, no longer in the old ones.';

-- With transition tables, a trigger cannot name the columns that it is for.
CREATE TRIGGER tally_states
    AFTER UPDATE ON job
    REFERENCING OLD TABLE AS was NEW TABLE AS became
    FOR EACH STATEMENT
    EXECUTE FUNCTION tally_states();
