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
DECLARE
    ended bigint;
BEGIN
    EXECUTE 'WITH noted AS (
             INSERT INTO tally (sweep, kind, method, variant, dataset, config, case_id, state, jobs)
             SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.case_id, j.state, count(*)
             FROM asked w JOIN job j ON j.id = w.job
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
             RETURNING kind, state
             )
             SELECT count(*) FROM noted WHERE kind = ''eval'' AND state IN (''done'', ''failed'', ''cancelled'')'
    INTO ended;
    -- Only these may have results already; a million new ones are not looked up again.
    IF ended = 0 THEN
        RETURN NULL;
    END IF;
    EXECUTE 'WITH ' || sum_results(
        'asked w JOIN job e ON e.id = w.job
         WHERE e.kind = ''eval'' AND (e.state = ''done'' OR e.outcome IS NOT NULL)',
        'CROSS JOIN LATERAL (SELECT * FROM result WHERE job = e.id OFFSET 0) s');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tally_asked() IS 'Counts the jobs that a sweep asks for now, and sums up the results that they have.';

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
                 SELECT n.id, n.kind, n.method, n.variant, n.dataset, n.config, n.case_id,
                        o.state AS was, n.state AS became
                 FROM was o FULL JOIN became n ON n.id = o.id
                 WHERE o.state IS DISTINCT FROM n.state
             )
             INSERT INTO tally (sweep, kind, method, variant, dataset, config, case_id, state, jobs)
             SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.case_id, c.state, sum(c.jobs)
             FROM changed j
             CROSS JOIN LATERAL (SELECT sweep FROM sweep_job WHERE job = j.id OFFSET 0) w
             CROSS JOIN LATERAL (VALUES (j.was, -1), (j.became, 1)) AS c (state, jobs)
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 HAVING sum(c.jobs) <> 0';
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

-- Table tally_metric has the sums of results. Results are never changed, and go with their jobs, which go when no sweep
-- asks for them.

CREATE FUNCTION fixed_point(value double precision) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    -- In two parts, each of which a bigint holds: 30 bits behind the point and 60 more. Only the bits of values below
    -- 2^-38 that lie behind both are lost. numeric itself would take 15 decimal digits of a value. No metric of 32-bit
    -- predictions is above 1e100, which is what larger values count as, so that sums of squares are doubles.
    WHEN abs(value) < 4294967296::double precision
    THEN trunc(value * 1073741824)::bigint * 1152921504606846976::numeric
         + trunc((value * 1073741824 - trunc(value * 1073741824)) * 1152921504606846976::double precision)::bigint
    ELSE trunc(greatest(least(value, 1e100), -1e100)::numeric * 1237940039285380274899124224)
END;
COMMENT ON FUNCTION fixed_point IS 'A value in units of 2^-90, as a whole number: exact for the doubles from 2^-38 to 2^32.';

CREATE FUNCTION fixed_mean(total numeric, defined bigint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (total / nullif(defined, 0))::double precision / 1237940039285380274899124224::double precision;
COMMENT ON FUNCTION fixed_mean IS 'The mean of values from their sum in fixed point; NULL of none.';

CREATE FUNCTION fixed_std(total numeric, squares numeric, defined bigint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN defined > 1 THEN
    sqrt(((defined * squares - total * total) / (defined::numeric * (defined - 1)))::double precision)
    / 1237940039285380274899124224::double precision
END;
COMMENT ON FUNCTION fixed_std IS 'The sample standard deviation (n - 1) of values from their sums in fixed point; NULL of fewer than two.';

CREATE FUNCTION processor_of_training(training uuid) RETURNS text LANGUAGE sql STABLE
RETURN coalesce((SELECT a.processor FROM checkpoint k JOIN attempt a ON a.id = k.attempt WHERE k.job = training LIMIT 1), '');
COMMENT ON FUNCTION processor_of_training IS 'The kind of processor that trained a model, as in attempt.processor; empty if unknown or trained elsewhere.';

CREATE FUNCTION processor_of_evaluation(evaluated uuid) RETURNS text LANGUAGE sql STABLE
RETURN coalesce((SELECT a.processor FROM evaluation v JOIN attempt a ON a.id = v.attempt WHERE v.job = evaluated LIMIT 1), '');
COMMENT ON FUNCTION processor_of_evaluation IS 'The kind of processor that made an evaluation; empty if unknown.';

CREATE FUNCTION sum_results(evaluations text, results text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN 'measured AS MATERIALIZED (
            SELECT w.sweep, e.id, e.method, e.variant, e.dataset, e.config, e.case_id,
                   processor_of_training(e.train_job) AS trained, processor_of_evaluation(e.id) AS evaluated
            FROM ' || evaluations || '
        )
        INSERT INTO tally_metric (sweep, method, variant, dataset, config, case_id, metric, on_test, trained, evaluated,
                                  defined, total, squares, low, high)
        SELECT e.sweep, e.method, e.variant, e.dataset, e.config, e.case_id, m.metric, s.criterion <> m.criterion,
               e.trained, e.evaluated, count(s.value), coalesce(sum(fixed_point(s.value)), 0),
               coalesce(sum(fixed_point(s.value) * fixed_point(s.value)), 0), min(s.value), max(s.value)
        FROM measured e ' || results || '
        JOIN metric m ON m.dataset = e.dataset AND m.metric = s.metric
                     AND s.criterion IN (m.criterion, ''test:'' || m.criterion)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10';
COMMENT ON FUNCTION sum_results IS 'What follows WITH in a statement that adds to tally_metric: the results s of the evaluations e that sweeps w ask for.';

CREATE FUNCTION tally_results() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'WITH ' || sum_results(
        '(SELECT DISTINCT job FROM stored) s
         CROSS JOIN LATERAL (SELECT * FROM job WHERE id = s.job OFFSET 0) e
         CROSS JOIN LATERAL (SELECT sweep FROM sweep_job WHERE job = s.job OFFSET 0) w',
        'JOIN stored s ON s.job = e.id');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tally_results() IS 'Adds results to the sums of the sweeps that ask for their jobs.';

CREATE TRIGGER tally_results
    AFTER INSERT ON result
    REFERENCING NEW TABLE AS stored
    FOR EACH STATEMENT
    EXECUTE FUNCTION tally_results();

CREATE FUNCTION recount(of uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- One statement each, one snapshot: a change that it does not see keeps its note.
    EXECUTE 'WITH gone AS (DELETE FROM tally WHERE sweep = $1)
             INSERT INTO tally (sweep, kind, method, variant, dataset, config, case_id, state, jobs)
             SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.case_id, j.state, count(*)
             FROM sweep_job w JOIN job j ON j.id = w.job
             WHERE w.sweep = $1
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8' USING of;
    -- No others have results. Those that come after this was looked up bring their notes.
    IF NOT EXISTS (SELECT FROM tally_metric WHERE sweep = of)
       AND NOT EXISTS (SELECT FROM tally
                       WHERE sweep = of AND kind = 'eval' AND state IN ('done', 'failed', 'cancelled')) THEN
        RETURN;
    END IF;
    EXECUTE 'WITH gone AS (DELETE FROM tally_metric WHERE sweep = $1), ' || sum_results(
        'sweep_job w JOIN job e ON e.id = w.job
         WHERE w.sweep = $1 AND e.kind = ''eval'' AND (e.state = ''done'' OR e.outcome IS NOT NULL)',
        'CROSS JOIN LATERAL (SELECT * FROM result WHERE job = e.id OFFSET 0) s') USING of;
END
$$;
COMMENT ON FUNCTION recount IS 'Counts the jobs of a sweep anew and sums up their results. For coord, while nobody changes who asks for what; and for whoever changed rows by hand.';
