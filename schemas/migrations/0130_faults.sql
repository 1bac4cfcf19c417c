-- Faults of workers, as against faults of jobs: an attempt that a worker gave back because of what
-- it lacks says so.

COMMENT ON TYPE attempt_outcome IS 'done: it delivered a result; failed: it ended with an error; handed_back: its worker was told to leave, or, where failure_kind says so, could not do it for a reason of its own; lost: another attempt at the same job began before it said how it ended.';
COMMENT ON COLUMN attempt.failure_kind IS 'Of a failed one: permanent, retryable, non_finite or crashed. Of one handed back for a fault of its worker: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN attempt.errors IS 'Of a failed one, or of one handed back for a fault of its worker: the error and its causes, outermost first.';
COMMENT ON COLUMN attempt.started IS 'When it began, by the worker''s clock. Cases are evaluated together: of an evaluation that is done, the end less its own seconds.';
COMMENT ON COLUMN attempt.seconds IS 'Of a training that is done: seconds spent over all attempts. Of an evaluation that is done: seconds spent on this case.';
COMMENT ON COLUMN job.started IS 'When its first attempt began; of an evaluation that is done, when the work on this very case began.';
COMMENT ON COLUMN job_status.started IS 'When its first attempt began; of an evaluation that is done, when the work on this very case began.';

UPDATE job_transition SET reason = 'an attempt failed and is tried again, its worker could not do it, or its message was lost'
WHERE (before, after) IN (('queued', 'ready'), ('running', 'ready'));

CREATE VIEW declined AS
SELECT j.sweep,
       j.id AS job,
       j.kind,
       j.method,
       j.variant,
       j.dataset,
       j.seed,
       j.case_id,
       a.id AS attempt,
       a.worker,
       a.host,
       a.device,
       a.ended,
       a.failure_kind AS fault,
       a.errors
FROM attempt a
JOIN job j ON j.id = a.job
WHERE a.outcome = 'handed_back' AND a.failure_kind IS NOT NULL;
COMMENT ON VIEW declined IS 'Every attempt that a worker gave back for a fault of its own: the job was not to blame and it does not count as a failure. Of one job at most the last fifty.';
COMMENT ON COLUMN declined.sweep IS 'The sweep.';
COMMENT ON COLUMN declined.job IS 'The job.';
COMMENT ON COLUMN declined.kind IS 'train, eval or noop.';
COMMENT ON COLUMN declined.method IS 'The method''s id.';
COMMENT ON COLUMN declined.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN declined.dataset IS 'mosi, mosei or sims.';
COMMENT ON COLUMN declined.seed IS 'The training seed.';
COMMENT ON COLUMN declined.case_id IS 'The case of an evaluation.';
COMMENT ON COLUMN declined.attempt IS 'The attempt.';
COMMENT ON COLUMN declined.worker IS 'Its worker.';
COMMENT ON COLUMN declined.host IS 'Its machine.';
COMMENT ON COLUMN declined.device IS 'Its device.';
COMMENT ON COLUMN declined.ended IS 'When it was given back, by the worker''s clock.';
COMMENT ON COLUMN declined.fault IS 'What the worker lacked: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN declined.errors IS 'The error and its causes, outermost first.';
