-- The state machine of a job. The rows of job_transition are the only place where it is written
-- down; the trigger refuses every other change of state, whoever asks for it.

CREATE TABLE job_transition (
    before job_state NOT NULL,
    after  job_state NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (before, after)
);
COMMENT ON TABLE job_transition IS 'The state machine of a job: which state may follow which, and when.';
COMMENT ON COLUMN job_transition.before IS 'The state it leaves.';
COMMENT ON COLUMN job_transition.after IS 'The state it enters.';
COMMENT ON COLUMN job_transition.reason IS 'When that happens.';

INSERT INTO job_transition (before, after, reason) VALUES
    ('blocked',   'ready',     'its model is trained'),
    ('blocked',   'failed',    'its training failed'),
    ('blocked',   'done',      'a result from before it was set back came late'),
    ('blocked',   'cancelled', 'its sweep was cancelled'),
    ('ready',     'queued',    'the broker has its message'),
    ('ready',     'running',   'a worker began before the row was marked queued'),
    ('ready',     'done',      'its result came before the row was marked queued, or from an earlier publication'),
    ('ready',     'failed',    'its last attempt failed before the row was marked queued'),
    ('ready',     'cancelled', 'its sweep was cancelled'),
    ('queued',    'running',   'a worker began'),
    ('queued',    'done',      'its result came and the note of its beginning did not, or later'),
    ('queued',    'ready',     'an attempt failed and is tried again, its worker could not do it, or its message was lost'),
    ('queued',    'failed',    'its last attempt failed'),
    ('queued',    'cancelled', 'its sweep was cancelled'),
    ('running',   'done',      'its result came'),
    ('running',   'queued',    'its worker was told to leave and handed it back'),
    ('running',   'ready',     'an attempt failed and is tried again, its worker could not do it, or its message was lost'),
    ('running',   'failed',    'its last attempt failed'),
    ('running',   'cancelled', 'its sweep was cancelled'),
    ('failed',    'done',      'an attempt that was given up delivered after all'),
    ('failed',    'ready',     'an operator asked to try again, or its training was done after all'),
    ('failed',    'blocked',   'an operator asked to try again and its training must come first'),
    ('cancelled', 'ready',     'its sweep was submitted again'),
    ('cancelled', 'blocked',   'its sweep was submitted again and its training must come first');

CREATE FUNCTION job_state_changes() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM job_transition t WHERE t.before = OLD.state AND t.after = NEW.state
    ) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation',
                  HINT = 'Table job_transition lists the changes of state that exist.';
    END IF;
    NEW.changed := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION job_state_changes() IS 'Refuses a change of state that is not in job_transition and notes the time of one that is.';

CREATE TRIGGER job_state_changes
    BEFORE UPDATE OF state ON job
    FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION job_state_changes();
