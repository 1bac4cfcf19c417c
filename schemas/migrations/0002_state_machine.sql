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
    ('blocked',   'cancelled', 'its sweep was cancelled'),
    ('ready',     'queued',    'its message is on the broker'),
    ('ready',     'running',   'a worker started before the row was marked queued'),
    ('ready',     'done',      'its result arrived before the row was marked queued, or from an earlier publication'),
    ('ready',     'failed',    'its last attempt failed before the row was marked queued'),
    ('ready',     'cancelled', 'its sweep was cancelled'),
    ('queued',    'running',   'a worker started'),
    ('queued',    'done',      'its result arrived before the report of its start'),
    ('queued',    'ready',     'an attempt failed and will be retried, the worker declined it, or its message was lost'),
    ('queued',    'failed',    'its last attempt failed'),
    ('queued',    'cancelled', 'its sweep was cancelled'),
    ('running',   'done',      'its result arrived'),
    ('running',   'queued',    'its worker shut down and handed it back'),
    ('running',   'ready',     'an attempt failed and will be retried, the worker declined it, or its message was lost'),
    ('running',   'failed',    'its last attempt failed'),
    ('running',   'cancelled', 'its sweep was cancelled'),
    ('failed',    'done',      'a late attempt delivered a result after all'),
    ('failed',    'ready',     'an operator asked for a retry, or its training job was done after all'),
    ('failed',    'blocked',   'an operator asked for a retry, and its training job must run first'),
    ('cancelled', 'ready',     'its sweep was submitted again'),
    ('cancelled', 'blocked',   'its sweep was submitted again, and its training job must run first');

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
