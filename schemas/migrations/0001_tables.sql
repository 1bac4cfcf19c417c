-- What Halfheard stores: sweeps, their jobs, the attempts at them, and the results.
--
-- Written by `coord` alone. Every row that comes from a message has a key derived from its content: a
-- redelivered message changes nothing.

CREATE TYPE sweep_state AS ENUM ('running', 'paused', 'cancelled');
COMMENT ON TYPE sweep_state IS 'What the operator wants a sweep to do. Whether it is finished follows from its jobs.';

CREATE TYPE job_kind AS ENUM ('train', 'eval', 'noop');
COMMENT ON TYPE job_kind IS 'train: trains one model; eval: evaluates one trained model on one case; noop: does nothing and measures the overhead.';

CREATE TYPE job_state AS ENUM ('blocked', 'ready', 'queued', 'running', 'done', 'failed', 'cancelled');
COMMENT ON TYPE job_state IS 'Table job_transition lists the transitions that exist.';

CREATE TYPE attempt_outcome AS ENUM ('done', 'failed', 'handed_back', 'lost', 'stalled', 'revoked');
COMMENT ON TYPE attempt_outcome IS 'done: delivered a result; failed: ended with an error; handed_back: its worker shut down or, if failure_kind is set, declined the job for a fault of its own; lost: its worker was not heard for as long as a lease lasts, or its process was replaced; stalled: its worker was heard, but the work did not advance; revoked: an operator cancelled the job, paused its sweep before it began, or took it back from a drained worker.';

CREATE TABLE installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id      uuid NOT NULL DEFAULT gen_random_uuid(),
    name    text NOT NULL DEFAULT current_database(),
    store   text,
    created timestamptz NOT NULL DEFAULT now()
);
INSERT INTO installation DEFAULT VALUES;
COMMENT ON TABLE installation IS 'Which installation this database belongs to: streams and artifact stores carry the same id, and refuse another. One row.';
COMMENT ON COLUMN installation.singleton IS 'Always true.';
COMMENT ON COLUMN installation.id IS 'Random, drawn when the tables were created.';
COMMENT ON COLUMN installation.name IS 'For people: the name of the database in which it was created.';
COMMENT ON COLUMN installation.store IS 'The id of the artifact store that its workers use; set by the first that is seen.';
COMMENT ON COLUMN installation.created IS 'Time at which the tables were created.';

CREATE TABLE leadership (
    term    bigint PRIMARY KEY,
    holder  text NOT NULL,
    expires timestamptz NOT NULL
);
INSERT INTO leadership VALUES (0, '', '-infinity');
COMMENT ON TABLE leadership IS 'Which coordinator leads. One row. Every transaction of a leader locks the row of its own term: one that was replaced finds none and writes nothing.';
COMMENT ON COLUMN leadership.term IS 'Ascending; each leader has its own. The primary key, so that taking the lead waits for transactions of the previous leader.';
COMMENT ON COLUMN leadership.holder IS 'The coordinator: machine and process.';
COMMENT ON COLUMN leadership.expires IS 'The lead may be taken after this time unless it was renewed.';

CREATE TABLE sweep (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    nonce      text,
    spec       text NOT NULL,
    resolved   jsonb NOT NULL,
    owner      text NOT NULL DEFAULT '',
    priority   integer NOT NULL DEFAULT 0,
    weight     double precision NOT NULL DEFAULT 1 CHECK (weight > 0 AND weight < 'Infinity'),
    max_running integer CHECK (max_running > 0),
    max_failures integer CHECK (max_failures >= 0),
    retention  text NOT NULL DEFAULT 'all' CHECK (retention IN ('all', 'results')),
    state      sweep_state NOT NULL DEFAULT 'running',
    stopped_because text,
    train_jobs bigint NOT NULL,
    eval_jobs  bigint NOT NULL,
    noop_jobs  bigint NOT NULL DEFAULT 0,
    created    timestamptz NOT NULL DEFAULT now(),
    changed    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sweep_created ON sweep (created);
CREATE INDEX sweep_name ON sweep (name);
COMMENT ON TABLE sweep IS 'One submitted spec.';
COMMENT ON COLUMN sweep.id IS 'Derived from the resolved spec and the nonce: the same spec submitted twice is the same sweep.';
COMMENT ON COLUMN sweep.name IS 'The name in the spec; several sweeps may share it.';
COMMENT ON COLUMN sweep.nonce IS 'Set by `coord submit --new` to make another sweep of the same spec.';
COMMENT ON COLUMN sweep.spec IS 'The spec as written, in TOML.';
COMMENT ON COLUMN sweep.resolved IS 'The spec with all defaults, hashes and hyper-parameters filled in.';
COMMENT ON COLUMN sweep.owner IS 'Who submitted it.';
COMMENT ON COLUMN sweep.priority IS 'A sweep with a higher one is served first.';
COMMENT ON COLUMN sweep.weight IS 'Its share among sweeps of equal priority.';
COMMENT ON COLUMN sweep.max_running IS 'How many of its jobs may be at work at once; NULL if any number.';
COMMENT ON COLUMN sweep.max_failures IS 'The sweep is paused when more of its jobs have failed; NULL if never.';
COMMENT ON COLUMN sweep.retention IS 'What `coord gc` keeps of it once it is finished: all, or results only (no checkpoints, no features).';
COMMENT ON COLUMN sweep.stopped_because IS 'Why it was paused by the coordinator itself; NULL if an operator did or it runs.';
COMMENT ON COLUMN sweep.state IS 'What the operator wants: running, paused or cancelled.';
COMMENT ON COLUMN sweep.train_jobs IS 'Number of training jobs.';
COMMENT ON COLUMN sweep.eval_jobs IS 'Number of evaluation jobs.';
COMMENT ON COLUMN sweep.noop_jobs IS 'Number of no-op jobs.';
COMMENT ON COLUMN sweep.created IS 'Time of the first submission.';
COMMENT ON COLUMN sweep.changed IS 'Time of the last change of state.';

CREATE TABLE config (
    id    uuid PRIMARY KEY,
    spec  jsonb NOT NULL,
    flop  double precision NOT NULL DEFAULT 0
);
COMMENT ON TABLE config IS 'What is trained, without the seed. Shared by jobs that differ only in seed and case.';
COMMENT ON COLUMN config.id IS 'Derived from the content of spec.';
COMMENT ON COLUMN config.flop IS 'Floating-point operations of a training of as many epochs as are likely, counted from the sizes of method, dataset and encoder; 0 where they cannot be counted.';
COMMENT ON COLUMN config.spec IS 'The training spec as workers receive it, with seed 0: method, variant, dataset, hashes of data and encoder, protocol, all hyper-parameters.';

CREATE TABLE dataset (
    blake3      text PRIMARY KEY,
    name        text NOT NULL,
    train_samples integer NOT NULL,
    valid_samples integer NOT NULL,
    test_samples  integer NOT NULL,
    test_labels bytea NOT NULL,
    added       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dataset IS 'The dataset files that sweeps used, with the labels that predictions are measured against.';
COMMENT ON COLUMN dataset.blake3 IS 'BLAKE3 of the imported file, 64 hexadecimal digits.';
COMMENT ON COLUMN dataset.name IS 'The protocol that the file follows: mosi, mosei, sims, or own for one of its own.';
COMMENT ON COLUMN dataset.train_samples IS 'Number of samples in the training split.';
COMMENT ON COLUMN dataset.valid_samples IS 'Number of samples in the validation split.';
COMMENT ON COLUMN dataset.test_samples IS 'Number of samples in the test split.';
COMMENT ON COLUMN dataset.test_labels IS 'Labels of the test split: little-endian 32-bit floats in the order of the file, as in prediction.data.';
COMMENT ON COLUMN dataset.added IS 'Time of its first use in a sweep.';

-- One COPY must insert a million rows within seconds: narrow rows, few indexes, CHECK constraints
-- instead of triggers. Table job_transition restricts changes of `state`.
CREATE TABLE job (
    id          uuid PRIMARY KEY,
    sweep       uuid REFERENCES sweep ON DELETE SET NULL,
    position    bigint NOT NULL,
    kind        job_kind NOT NULL,
    method      text NOT NULL DEFAULT '',
    variant     text NOT NULL DEFAULT '',
    dataset     text NOT NULL DEFAULT '',
    seed        bigint NOT NULL DEFAULT 0,
    case_id     text,
    confusions  text,
    train_job   uuid,
    config      uuid,
    state       job_state NOT NULL,
    attempt     uuid,
    worker      text,
    session     uuid,
    lease_until timestamptz,
    failures    integer NOT NULL DEFAULT 0,
    losses      integer NOT NULL DEFAULT 0,
    progress    bigint NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT '-infinity',
    min_memory  bigint NOT NULL DEFAULT 0,
    label       text,
    cost        real NOT NULL DEFAULT 0,
    length      real NOT NULL DEFAULT 0,
    outcome     bytea,
    last_error  text,
    started     timestamptz,
    finished    timestamptz,
    changed     timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'eval') = (case_id IS NOT NULL)),
    CHECK ((kind = 'eval') = (train_job IS NOT NULL)),
    CHECK ((kind = 'noop') = (config IS NULL)),
    CHECK (state <> 'blocked' OR kind = 'eval'),
    CHECK ((state IN ('queued', 'running')) = (lease_until IS NOT NULL)),
    CHECK (lease_until IS NULL OR (attempt IS NOT NULL AND worker IS NOT NULL AND session IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX job_of_sweep ON job (sweep, state, kind);
CREATE INDEX job_of_train ON job (train_job) WHERE train_job IS NOT NULL;
CREATE INDEX job_of_config ON job (config) WHERE kind = 'train';
CREATE INDEX job_ready_train ON job (sweep, length DESC, position) WHERE state = 'ready' AND kind = 'train';
CREATE INDEX job_ready_eval ON job (sweep, position) WHERE state = 'ready' AND kind <> 'train';
CREATE INDEX job_leased ON job (worker) WHERE state IN ('queued', 'running');
CREATE INDEX job_finished ON job (sweep, finished) WHERE state = 'done';
CREATE INDEX job_needs ON job (sweep, min_memory, label) WHERE state = 'ready' AND (min_memory > 0 OR label IS NOT NULL);
CREATE INDEX job_troubled ON job (id) WHERE state = 'failed' OR failures > 0;
COMMENT ON TABLE job IS 'One training, evaluation or no-op job, by its content: sweeps that ask for the same share it (table sweep_job). Who has it is in its row alone.';
COMMENT ON COLUMN job.id IS 'Derived from the job''s content: what is computed, whoever asks for it.';
COMMENT ON COLUMN job.sweep IS 'The sweep under which it is scheduled: one of those in sweep_job. NULL if none asks for it any more.';
COMMENT ON COLUMN job.position IS 'Its position in that sweep, from 0.';
COMMENT ON COLUMN job.kind IS 'train, eval or noop.';
COMMENT ON COLUMN job.method IS 'The method''s id, such as lnln.';
COMMENT ON COLUMN job.variant IS 'The variant''s id, such as no-dmc; empty for the method itself.';
COMMENT ON COLUMN job.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN job.seed IS 'The training seed.';
COMMENT ON COLUMN job.case_id IS 'The case of an evaluation job: r=0.3, missing=la, block=0.5@1112. NULL for the other kinds.';
COMMENT ON COLUMN job.confusions IS 'BLAKE3 of the table of what words are heard as, for a case with errors of speech recognition; NULL for others.';
COMMENT ON COLUMN job.train_job IS 'The training job whose model an evaluation job uses.';
COMMENT ON COLUMN job.config IS 'The config that is trained or, for an evaluation job, was trained.';
COMMENT ON COLUMN job.state IS 'Its state; see table job_transition.';
COMMENT ON COLUMN job.attempt IS 'The attempt that was granted last; it has the job while the state is queued or running.';
COMMENT ON COLUMN job.worker IS 'The worker that has it, or had it last.';
COMMENT ON COLUMN job.session IS 'The process of that worker.';
COMMENT ON COLUMN job.lease_until IS 'Until when the worker has it unless it is heard again, by the database''s clock; NULL if nobody has it.';
COMMENT ON COLUMN job.failures IS 'Number of attempts that failed with an error of the job''s own.';
COMMENT ON COLUMN job.losses IS 'Number of attempts that began and ended without a word since an attempt last saved a further state than it began from.';
COMMENT ON COLUMN job.progress IS 'Training steps in the last state that was saved.';
COMMENT ON COLUMN job.not_before IS 'A ready job is not granted before this time, which delays retries.';
COMMENT ON COLUMN job.min_memory IS 'Only for devices with at least so many bytes of memory; 0 if any.';
COMMENT ON COLUMN job.label IS 'Only for workers with this label; NULL if any.';
COMMENT ON COLUMN job.cost IS 'Seconds, estimated from what was measured; 0 while nothing was.';
COMMENT ON COLUMN job.length IS 'By what trainings are granted, the longest first: cost, or while nothing was measured a guess from config.flop.';
COMMENT ON COLUMN job.outcome IS 'First 16 bytes of the BLAKE3 hash of the first result; a later result with another hash is a conflict.';
COMMENT ON COLUMN job.last_error IS 'The last failure, outermost error first.';
COMMENT ON COLUMN job.started IS 'Start of the first attempt; for a completed evaluation, start of the work on this case.';
COMMENT ON COLUMN job.finished IS 'Time at which it was done, failed or cancelled.';
COMMENT ON COLUMN job.changed IS 'Time of the last change of state.';

CREATE TABLE sweep_job (
    sweep    uuid NOT NULL REFERENCES sweep ON DELETE CASCADE,
    position bigint NOT NULL,
    job      uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    PRIMARY KEY (sweep, position)
);
CREATE UNIQUE INDEX sweep_job_of_job ON sweep_job (job, sweep);
COMMENT ON TABLE sweep_job IS 'Which jobs a sweep asks for. Several sweeps may ask for the same.';
COMMENT ON COLUMN sweep_job.sweep IS 'The sweep.';
COMMENT ON COLUMN sweep_job.position IS 'The job''s position in it, from 0.';
COMMENT ON COLUMN sweep_job.job IS 'The job.';

-- A million jobs are not counted each time that somebody looks. Rows are only added, so transactions do not wait for
-- each other here; the leader folds them now and then. Triggers write them (0002_state_machine.sql).
CREATE TABLE tally (
    sweep   uuid NOT NULL,
    kind    job_kind NOT NULL,
    method  text NOT NULL,
    variant text NOT NULL,
    dataset text NOT NULL,
    config  uuid,
    case_id text,
    state   job_state NOT NULL,
    jobs    bigint NOT NULL
);
CREATE INDEX tally_of_sweep ON tally (sweep);
COMMENT ON TABLE tally IS 'How many jobs each sweep asks for, by what they are and in which state: the sums of jobs. Derived from sweep_job and job.';
COMMENT ON COLUMN tally.sweep IS 'A sweep that asks for them. What is left of deleted ones goes with the next folding.';
COMMENT ON COLUMN tally.kind IS 'train, eval or noop.';
COMMENT ON COLUMN tally.method IS 'The method''s id.';
COMMENT ON COLUMN tally.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN tally.dataset IS 'The dataset''s name.';
COMMENT ON COLUMN tally.config IS 'The config, as in job.config.';
COMMENT ON COLUMN tally.case_id IS 'The case of evaluations; NULL for the other kinds.';
COMMENT ON COLUMN tally.state IS 'The state.';
COMMENT ON COLUMN tally.jobs IS 'By how many jobs their number grew; negative where jobs left this state.';

CREATE TABLE attempt (
    id           uuid PRIMARY KEY,
    job          uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    worker       text NOT NULL,
    session      uuid NOT NULL,
    ask          bigint NOT NULL DEFAULT 0,
    memory       bigint NOT NULL DEFAULT 0,
    advanced     boolean NOT NULL DEFAULT false,
    void         boolean NOT NULL DEFAULT false,
    host         text NOT NULL DEFAULT '',
    device       text NOT NULL DEFAULT '',
    version      text NOT NULL DEFAULT '',
    processor    text NOT NULL DEFAULT '',
    ready        timestamptz,
    granted      timestamptz NOT NULL DEFAULT now(),
    started      timestamptz,
    resumed_after_epoch integer,
    ended        timestamptz,
    outcome      attempt_outcome,
    failure_kind text,
    errors       text[] NOT NULL DEFAULT '{}',
    epochs       integer,
    seconds      double precision,
    peak_memory  bigint
);
CREATE INDEX attempt_of_job ON attempt (job);
COMMENT ON TABLE attempt IS 'One grant of a job to a worker, and how it ended.';
COMMENT ON COLUMN attempt.id IS 'Chosen by the coordinator. Without hyphens, it is the id of the attempt''s trace.';
COMMENT ON COLUMN attempt.job IS 'Its job.';
COMMENT ON COLUMN attempt.worker IS 'The worker''s unique name.';
COMMENT ON COLUMN attempt.session IS 'The process of that worker.';
COMMENT ON COLUMN attempt.ask IS 'Number of the request that it answered, within the session.';
COMMENT ON COLUMN attempt.memory IS 'Bytes of the device''s memory, as its worker announced; 0 if unknown.';
COMMENT ON COLUMN attempt.advanced IS 'Whether it stored a state beyond the one that it began from: ending without a word then does not count against the job.';
COMMENT ON COLUMN attempt.void IS 'Whether its result no longer counts, because it evaluates weights that were replaced.';
COMMENT ON COLUMN attempt.host IS 'The worker''s machine.';
COMMENT ON COLUMN attempt.device IS 'cpu, or the name of the GPU.';
COMMENT ON COLUMN attempt.version IS 'The worker''s version and revision.';
COMMENT ON COLUMN attempt.processor IS 'What the last bits of the results depend on: instruction set, vendor and thread count of the processor, or the GPU; portable if they do not depend on it; several joined with +, in order, if training moved between them. Empty if unknown.';
COMMENT ON COLUMN attempt.ready IS 'Since when the job had waited for a worker; NULL if unknown.';
COMMENT ON COLUMN attempt.granted IS 'Time at which the worker was given the job.';
COMMENT ON COLUMN attempt.started IS 'Time at which its report of the start arrived; NULL if it never began. Cases are evaluated together: for a completed evaluation, its end minus its own seconds.';
COMMENT ON COLUMN attempt.resumed_after_epoch IS 'The last epoch completed by an earlier attempt; 0 if training starts from scratch.';
COMMENT ON COLUMN attempt.ended IS 'Time at which the report of its end arrived, or at which it was found to be lost.';
COMMENT ON COLUMN attempt.outcome IS 'How it ended; NULL while it is running.';
COMMENT ON COLUMN attempt.failure_kind IS 'For a failed attempt: permanent, retryable, out_of_memory, non_finite, invalid or crashed. For a declined one, the fault of the worker: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN attempt.errors IS 'For a failed or declined attempt: the error and its causes, outermost first.';
COMMENT ON COLUMN attempt.epochs IS 'For a completed training job: epochs over all attempts. For a handed-back attempt: the epoch of the saved state.';
COMMENT ON COLUMN attempt.peak_memory IS 'The most bytes of the device''s memory that it used; NULL if unknown.';
COMMENT ON COLUMN attempt.seconds IS 'For a completed training job: seconds over all attempts. For a completed evaluation: seconds spent on this case.';

CREATE TABLE attempt_output (
    attempt uuid PRIMARY KEY REFERENCES attempt ON DELETE CASCADE,
    tail    text NOT NULL,
    bytes   bigint NOT NULL,
    stored  boolean NOT NULL
);
COMMENT ON TABLE attempt_output IS 'What the external program of an attempt wrote to standard error.';
COMMENT ON COLUMN attempt_output.attempt IS 'The attempt.';
COMMENT ON COLUMN attempt_output.tail IS 'The end of it, at most 64 KiB. Written by a program: it may hold anything.';
COMMENT ON COLUMN attempt_output.bytes IS 'Bytes of the whole.';
COMMENT ON COLUMN attempt_output.stored IS 'Whether the whole is in the artifact store: output/<attempt>.txt.';

CREATE TABLE epoch_log (
    job           uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    epoch         integer NOT NULL,
    attempt       uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    losses        jsonb NOT NULL,
    metrics       jsonb NOT NULL,
    train_seconds double precision NOT NULL,
    eval_seconds  double precision NOT NULL,
    best_for      text[] NOT NULL,
    PRIMARY KEY (job, epoch)
);
CREATE INDEX epoch_log_of_attempt ON epoch_log (attempt);
COMMENT ON TABLE epoch_log IS 'One epoch of one training job.';
COMMENT ON COLUMN epoch_log.job IS 'The training job.';
COMMENT ON COLUMN epoch_log.epoch IS 'From 1.';
COMMENT ON COLUMN epoch_log.attempt IS 'The attempt that trained the epoch.';
COMMENT ON COLUMN epoch_log.losses IS 'Mean training losses by name: loss is the total, the others its parts.';
COMMENT ON COLUMN epoch_log.metrics IS 'Metrics on the selection split by name, null if undefined; where both splits select, those on the test split under test:mae and so on.';
COMMENT ON COLUMN epoch_log.train_seconds IS 'Wall-clock seconds of training.';
COMMENT ON COLUMN epoch_log.eval_seconds IS 'Wall-clock seconds of evaluation.';
COMMENT ON COLUMN epoch_log.best_for IS 'The selection criteria for which this epoch was the best so far; test:mae is mae on the test split, where both select.';

CREATE TABLE checkpoint (
    job       uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    criterion text NOT NULL,
    epoch     integer NOT NULL,
    blake3    text NOT NULL,
    bytes     bigint NOT NULL,
    attempt   uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    PRIMARY KEY (job, criterion)
);
CREATE INDEX checkpoint_of_attempt ON checkpoint (attempt);
CREATE INDEX checkpoint_blake3 ON checkpoint (blake3);
COMMENT ON TABLE checkpoint IS 'The best weights of one training job by one selection criterion.';
COMMENT ON COLUMN checkpoint.job IS 'The training job.';
COMMENT ON COLUMN checkpoint.criterion IS 'The selection criterion; test:mae is mae on the test split, where both splits select.';
COMMENT ON COLUMN checkpoint.epoch IS 'The epoch after which they were saved.';
COMMENT ON COLUMN checkpoint.blake3 IS 'BLAKE3 of the file, which is its name in the artifact store: checkpoints/<blake3>.safetensors.';
COMMENT ON COLUMN checkpoint.bytes IS 'Size of the file in bytes.';
COMMENT ON COLUMN checkpoint.attempt IS 'The attempt that delivered it.';

CREATE TABLE prediction (
    job     uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    number  integer NOT NULL,
    samples integer NOT NULL,
    data    bytea NOT NULL,
    PRIMARY KEY (job, number)
);
-- Floats do not compress; trying to would cost time on every insert.
ALTER TABLE prediction ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE prediction IS 'The distinct prediction vectors of one evaluation. Criteria with the same checkpoint share one.';
COMMENT ON COLUMN prediction.job IS 'The evaluation job.';
COMMENT ON COLUMN prediction.number IS 'From 0; referenced by evaluation.prediction.';
COMMENT ON COLUMN prediction.samples IS 'Number of samples.';
COMMENT ON COLUMN prediction.data IS 'Little-endian 32-bit floats, in the order of the test split.';

CREATE TABLE evaluation (
    job        uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    criterion  text NOT NULL,
    epoch      integer NOT NULL,
    prediction integer NOT NULL,
    attempt    uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    PRIMARY KEY (job, criterion),
    FOREIGN KEY (job, prediction) REFERENCES prediction (job, number) ON DELETE CASCADE
);
CREATE INDEX evaluation_of_attempt ON evaluation (attempt);
COMMENT ON TABLE evaluation IS 'The evaluation of one selection criterion''s checkpoint on one case.';
COMMENT ON COLUMN evaluation.job IS 'The evaluation job.';
COMMENT ON COLUMN evaluation.criterion IS 'The selection criterion of the checkpoint, as in table checkpoint.';
COMMENT ON COLUMN evaluation.epoch IS 'The epoch after which the checkpoint was saved.';
COMMENT ON COLUMN evaluation.prediction IS 'The predictions: prediction.number of the same job.';
COMMENT ON COLUMN evaluation.attempt IS 'The attempt that delivered it, with its worker, device and version.';

CREATE TABLE result (
    job       uuid NOT NULL,
    criterion text NOT NULL,
    metric    text NOT NULL,
    value     double precision,
    PRIMARY KEY (job, criterion, metric) INCLUDE (value),
    FOREIGN KEY (job, criterion) REFERENCES evaluation ON DELETE CASCADE,
    CHECK (value <> 'NaN'::double precision)
);
COMMENT ON TABLE result IS 'One metric of one selection criterion''s checkpoint on one case. Fractions from 0 to 1, except mae and corr; not rounded.';
COMMENT ON COLUMN result.job IS 'The evaluation job.';
COMMENT ON COLUMN result.criterion IS 'The selection criterion of the checkpoint, as in table checkpoint.';
COMMENT ON COLUMN result.metric IS 'The metric''s id.';
COMMENT ON COLUMN result.value IS 'The value; NULL if undefined, such as the correlation with a constant.';

-- As table tally, for what tables of means show. Sums are of whole numbers: they do not depend on the order in which
-- results arrived, as sums of floating-point numbers do.
CREATE TABLE tally_metric (
    sweep     uuid NOT NULL,
    method    text NOT NULL,
    variant   text NOT NULL,
    dataset   text NOT NULL,
    config    uuid,
    case_id   text NOT NULL,
    metric    text NOT NULL,
    on_test   boolean NOT NULL,
    trained   text NOT NULL,
    evaluated text NOT NULL,
    defined   bigint NOT NULL,
    total     numeric NOT NULL,
    squares   numeric NOT NULL,
    low       double precision,
    high      double precision
);
CREATE INDEX tally_metric_of_sweep ON tally_metric (sweep);
COMMENT ON TABLE tally_metric IS 'Sums of each metric over seeds, from the checkpoint of the metric''s own family. Derived from sweep_job, job and result; the leader folds it as it does tally.';
COMMENT ON COLUMN tally_metric.sweep IS 'A sweep that asks for the evaluations.';
COMMENT ON COLUMN tally_metric.method IS 'The method''s id.';
COMMENT ON COLUMN tally_metric.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN tally_metric.dataset IS 'The dataset''s name.';
COMMENT ON COLUMN tally_metric.config IS 'The config, as in job.config.';
COMMENT ON COLUMN tally_metric.case_id IS 'The case.';
COMMENT ON COLUMN tally_metric.metric IS 'The metric''s id.';
COMMENT ON COLUMN tally_metric.on_test IS 'Whether the test split chose the checkpoint beside the validation split, rather than the split that the spec names.';
COMMENT ON COLUMN tally_metric.trained IS 'The kind of processor of the training, as in attempt.processor.';
COMMENT ON COLUMN tally_metric.evaluated IS 'The kind of processor of the evaluation.';
COMMENT ON COLUMN tally_metric.defined IS 'Number of values that are defined.';
COMMENT ON COLUMN tally_metric.total IS 'Their sum, in units of 2^-90 (see fixed_point).';
COMMENT ON COLUMN tally_metric.squares IS 'The sum of their squares, in units of 2^-180.';
COMMENT ON COLUMN tally_metric.low IS 'The least of them.';
COMMENT ON COLUMN tally_metric.high IS 'The greatest of them.';

CREATE TABLE conflict (
    job      uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    attempt  uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    what     text NOT NULL,
    kept     bytea NOT NULL,
    refused  bytea NOT NULL,
    content  jsonb NOT NULL,
    noticed  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, attempt, what)
);
CREATE INDEX conflict_of_attempt ON conflict (attempt);
COMMENT ON TABLE conflict IS 'A result that differs from the first one for the same job or epoch. The first one counts; this is the other.';
COMMENT ON COLUMN conflict.job IS 'The job.';
COMMENT ON COLUMN conflict.attempt IS 'The attempt that delivered this result.';
COMMENT ON COLUMN conflict.what IS 'trained, evaluated, or epoch with its number.';
COMMENT ON COLUMN conflict.kept IS 'Hash of the result that counts.';
COMMENT ON COLUMN conflict.refused IS 'Hash of this result.';
COMMENT ON COLUMN conflict.content IS 'This result, without predictions.';
COMMENT ON COLUMN conflict.noticed IS 'Time of arrival.';

CREATE TABLE other_processor (
    job       uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    what      text NOT NULL,
    processor text NOT NULL,
    attempt   uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    digest    bytea NOT NULL,
    content   jsonb NOT NULL,
    noticed   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, what, processor)
);
CREATE INDEX other_processor_of_attempt ON other_processor (attempt);
COMMENT ON TABLE other_processor IS 'A result that differs from the first one and was computed on another kind of processor: the first of each kind. That is not a conflict; two that differ on the same kind are.';
COMMENT ON COLUMN other_processor.job IS 'The job.';
COMMENT ON COLUMN other_processor.what IS 'trained, evaluated, or epoch with its number.';
COMMENT ON COLUMN other_processor.processor IS 'The kind of processor, as in attempt.processor.';
COMMENT ON COLUMN other_processor.attempt IS 'The attempt that delivered it.';
COMMENT ON COLUMN other_processor.digest IS 'Hash of the result; a later one of the same kind with another hash is a conflict.';
COMMENT ON COLUMN other_processor.content IS 'The result, without predictions.';
COMMENT ON COLUMN other_processor.noticed IS 'Time of arrival.';

CREATE TABLE drained_worker (
    worker  text PRIMARY KEY,
    by      text NOT NULL,
    since   timestamptz NOT NULL DEFAULT now(),
    at_once boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE drained_worker IS 'Workers that are granted nothing more until an operator says otherwise.';
COMMENT ON COLUMN drained_worker.worker IS 'The name of a slot, of a worker with all its slots, or of a machine after host:.';
COMMENT ON COLUMN drained_worker.by IS 'Who asked for it.';
COMMENT ON COLUMN drained_worker.since IS 'Since when.';
COMMENT ON COLUMN drained_worker.at_once IS 'Whether what they have is taken back, rather than finished.';

CREATE TABLE dead_letter (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject  text NOT NULL,
    sequence bigint NOT NULL,
    reason   text NOT NULL,
    payload  bytea NOT NULL,
    received timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dead_letter IS 'The last 1000 messages that were refused or could not be stored.';
COMMENT ON COLUMN dead_letter.id IS 'Ascending in order of arrival.';
COMMENT ON COLUMN dead_letter.subject IS 'The subject it was published on.';
COMMENT ON COLUMN dead_letter.sequence IS 'Its sequence number in the stream RESULTS.';
COMMENT ON COLUMN dead_letter.reason IS 'Why it was rejected.';
COMMENT ON COLUMN dead_letter.payload IS 'Its first 64 KiB.';
COMMENT ON COLUMN dead_letter.received IS 'Time of arrival.';

CREATE TABLE notification (
    event text NOT NULL,
    key   text NOT NULL,
    sweep uuid REFERENCES sweep ON DELETE CASCADE,
    at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event, key)
);
CREATE INDEX notification_of_sweep ON notification (sweep);
COMMENT ON TABLE notification IS 'The events of the last 90 days that operators were told about: each once, whichever coordinator leads.';
COMMENT ON COLUMN notification.event IS 'sweep_finished, sweep_stalled, sweep_paused, worker_sits_out or dead_letters; the rows of watched say when events were looked for first and last.';
COMMENT ON COLUMN notification.key IS 'Which of its kind: another key is another event.';
COMMENT ON COLUMN notification.sweep IS 'The sweep that it is about; NULL if none.';
COMMENT ON COLUMN notification.at IS 'When it was recorded, which is before anybody was told.';

CREATE TABLE allocation (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster   text NOT NULL,
    partition text NOT NULL,
    slurm_id  bigint NOT NULL,
    log       text NOT NULL DEFAULT '',
    submitted timestamptz NOT NULL DEFAULT now(),
    state     text NOT NULL DEFAULT 'PENDING',
    reason    text NOT NULL DEFAULT '',
    started   timestamptz,
    ends      timestamptz,
    restarts  integer NOT NULL DEFAULT 0,
    ended     timestamptz,
    died      boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX allocation_open ON allocation (cluster, slurm_id) WHERE ended IS NULL;
CREATE INDEX allocation_ended ON allocation (ended);
COMMENT ON TABLE allocation IS 'The Slurm jobs that `coord slurm` submitted for workers, those of the last 30 days.';
COMMENT ON COLUMN allocation.id IS 'Ascending in order of submission: Slurm may use a number again.';
COMMENT ON COLUMN allocation.cluster IS 'The name of the Slurm cluster.';
COMMENT ON COLUMN allocation.partition IS 'The partition that it was submitted to.';
COMMENT ON COLUMN allocation.slurm_id IS 'Slurm''s number of the job. A preempted job that is queued again keeps it.';
COMMENT ON COLUMN allocation.log IS 'The file of its worker''s log; empty if unknown.';
COMMENT ON COLUMN allocation.submitted IS 'Time of the submission.';
COMMENT ON COLUMN allocation.state IS 'Slurm''s word for its state: PENDING, RUNNING, COMPLETING, COMPLETED, TIMEOUT, PREEMPTED and others; LOST if Slurm knows it no more.';
COMMENT ON COLUMN allocation.reason IS 'Why it waits, in Slurm''s word; why it ended, if it ended badly.';
COMMENT ON COLUMN allocation.started IS 'When it was started last; NULL if it never was.';
COMMENT ON COLUMN allocation.ends IS 'When its time runs out; NULL unless it runs.';
COMMENT ON COLUMN allocation.restarts IS 'How often it was preempted, or its node failed, and it was queued again.';
COMMENT ON COLUMN allocation.ended IS 'When it ended; NULL until then.';
COMMENT ON COLUMN allocation.died IS 'Whether it ended badly within a minute: then submission backs off.';

CREATE TABLE feeder (
    cluster   text NOT NULL,
    partition text NOT NULL,
    holder    text NOT NULL,
    session   uuid NOT NULL,
    expires   timestamptz NOT NULL,
    PRIMARY KEY (cluster, partition)
);
COMMENT ON TABLE feeder IS 'Which `coord slurm` submits to which partition: one at a time.';
COMMENT ON COLUMN feeder.cluster IS 'The name of the Slurm cluster.';
COMMENT ON COLUMN feeder.partition IS 'The partition.';
COMMENT ON COLUMN feeder.holder IS 'The process: machine and process id.';
COMMENT ON COLUMN feeder.session IS 'Random, of that process.';
COMMENT ON COLUMN feeder.expires IS 'Another may submit after this time unless it was renewed.';
