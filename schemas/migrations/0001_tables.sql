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

CREATE TYPE attempt_outcome AS ENUM ('done', 'failed', 'handed_back', 'lost');
COMMENT ON TYPE attempt_outcome IS 'done: delivered a result; failed: ended with an error; handed_back: its worker shut down or, if failure_kind is set, declined the job for a fault of its own; lost: another attempt at the same job began before this one reported its end.';

CREATE TABLE sweep (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    nonce      text,
    spec       text NOT NULL,
    resolved   jsonb NOT NULL,
    priority   integer NOT NULL DEFAULT 0,
    state      sweep_state NOT NULL DEFAULT 'running',
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
COMMENT ON COLUMN sweep.priority IS 'A sweep with a higher one is served first.';
COMMENT ON COLUMN sweep.state IS 'What the operator wants: running, paused or cancelled.';
COMMENT ON COLUMN sweep.train_jobs IS 'Number of training jobs.';
COMMENT ON COLUMN sweep.eval_jobs IS 'Number of evaluation jobs.';
COMMENT ON COLUMN sweep.noop_jobs IS 'Number of no-op jobs.';
COMMENT ON COLUMN sweep.created IS 'Time of the first submission.';
COMMENT ON COLUMN sweep.changed IS 'Time of the last change of state.';

CREATE TABLE config (
    id    uuid PRIMARY KEY,
    spec  jsonb NOT NULL
);
COMMENT ON TABLE config IS 'What is trained, without the seed. Shared by jobs that differ only in seed and case.';
COMMENT ON COLUMN config.id IS 'Derived from the content of spec.';
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
    sweep       uuid NOT NULL REFERENCES sweep ON DELETE CASCADE,
    position    bigint NOT NULL,
    kind        job_kind NOT NULL,
    method      text NOT NULL DEFAULT '',
    variant     text NOT NULL DEFAULT '',
    dataset     text NOT NULL DEFAULT '',
    seed        bigint NOT NULL DEFAULT 0,
    case_id     text,
    train_job   uuid,
    config      uuid,
    state       job_state NOT NULL,
    publication integer NOT NULL DEFAULT 0,
    publications_before integer NOT NULL DEFAULT 0,
    failures    integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT '-infinity',
    attempt     uuid,
    outcome     bytea,
    last_error  text,
    started     timestamptz,
    finished    timestamptz,
    changed     timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'eval') = (case_id IS NOT NULL)),
    CHECK ((kind = 'eval') = (train_job IS NOT NULL)),
    CHECK ((kind = 'noop') = (config IS NULL)),
    CHECK (state <> 'blocked' OR kind = 'eval')
) WITH (fillfactor = 80);
CREATE INDEX job_of_sweep ON job (sweep, state, kind);
CREATE INDEX job_of_train ON job (train_job) WHERE train_job IS NOT NULL;
CREATE INDEX job_ready_train ON job (sweep, position) WHERE state = 'ready' AND kind = 'train';
CREATE INDEX job_ready_eval ON job (sweep, position) WHERE state = 'ready' AND kind <> 'train';
CREATE INDEX job_in_flight ON job (changed) INCLUDE (kind) WHERE state IN ('queued', 'running');
COMMENT ON TABLE job IS 'One training, evaluation or no-op job of one sweep. The rows in state ready are the outbox: their messages are to be sent.';
COMMENT ON COLUMN job.id IS 'Derived from the sweep and the job''s content.';
COMMENT ON COLUMN job.sweep IS 'The sweep it belongs to.';
COMMENT ON COLUMN job.position IS 'Its position in the sweep, from 0.';
COMMENT ON COLUMN job.kind IS 'train, eval or noop.';
COMMENT ON COLUMN job.method IS 'The method''s id, such as lnln.';
COMMENT ON COLUMN job.variant IS 'The variant''s id, such as no-dmc; empty for the method itself.';
COMMENT ON COLUMN job.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN job.seed IS 'The training seed.';
COMMENT ON COLUMN job.case_id IS 'The case of an evaluation job: r=0.3 or missing=la. NULL for the other kinds.';
COMMENT ON COLUMN job.train_job IS 'The training job whose model an evaluation job uses.';
COMMENT ON COLUMN job.config IS 'The config that is trained or, for an evaluation job, was trained.';
COMMENT ON COLUMN job.state IS 'Its state; see table job_transition.';
COMMENT ON COLUMN job.publication IS 'Number of publications; every retry is a new one.';
COMMENT ON COLUMN job.publications_before IS 'Publications that do not count as attempts: those before the job was reopened by an operator or because its message was lost. Of the others, each beyond failures + 1 was declined by a worker for a fault of its own.';
COMMENT ON COLUMN job.failures IS 'Number of attempts that failed with an error.';
COMMENT ON COLUMN job.not_before IS 'A ready job is not published before this time, which delays retries.';
COMMENT ON COLUMN job.attempt IS 'The attempt that began last.';
COMMENT ON COLUMN job.outcome IS 'First 16 bytes of the BLAKE3 hash of the first result; a later result with another hash is a conflict.';
COMMENT ON COLUMN job.last_error IS 'The last failure, outermost error first.';
COMMENT ON COLUMN job.started IS 'Start of the first attempt; for a completed evaluation, start of the work on this case.';
COMMENT ON COLUMN job.finished IS 'Time at which it was done, failed or cancelled.';
COMMENT ON COLUMN job.changed IS 'Time of the last change of state.';

CREATE TABLE attempt (
    id           uuid PRIMARY KEY,
    job          uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    publication  integer NOT NULL,
    delivery     bigint,
    worker       text NOT NULL,
    host         text NOT NULL,
    device       text NOT NULL,
    version      text NOT NULL,
    processor    text NOT NULL DEFAULT '',
    started      timestamptz,
    resumed_after_epoch integer,
    ended        timestamptz,
    outcome      attempt_outcome,
    failure_kind text,
    errors       text[] NOT NULL DEFAULT '{}',
    epochs       integer,
    seconds      double precision
);
CREATE INDEX attempt_of_job ON attempt (job);
COMMENT ON TABLE attempt IS 'One delivery of a job to a worker, and how it ended.';
COMMENT ON COLUMN attempt.id IS 'Chosen by the worker.';
COMMENT ON COLUMN attempt.job IS 'Its job.';
COMMENT ON COLUMN attempt.publication IS 'Number of the publication that was delivered.';
COMMENT ON COLUMN attempt.delivery IS 'Number of this delivery of the publication, from 1.';
COMMENT ON COLUMN attempt.worker IS 'The worker''s unique name.';
COMMENT ON COLUMN attempt.host IS 'The worker''s machine.';
COMMENT ON COLUMN attempt.device IS 'cpu, or the name of the GPU.';
COMMENT ON COLUMN attempt.version IS 'The worker''s version and revision.';
COMMENT ON COLUMN attempt.processor IS 'What the last bits of the results depend on: instruction set, vendor and thread count of the processor, or the GPU; portable if they do not depend on it; several joined with +, in order, if training moved between them. Empty if unknown.';
COMMENT ON COLUMN attempt.started IS 'Start, by the worker''s clock. Cases are evaluated together: for a completed evaluation, its end minus its own seconds.';
COMMENT ON COLUMN attempt.resumed_after_epoch IS 'The last epoch completed by an earlier attempt; 0 if training starts from scratch.';
COMMENT ON COLUMN attempt.ended IS 'End, by the worker''s clock; for a lost attempt, the time at which it was found to be lost.';
COMMENT ON COLUMN attempt.outcome IS 'How it ended; NULL while it is running.';
COMMENT ON COLUMN attempt.failure_kind IS 'For a failed attempt: permanent, retryable, non_finite or crashed. For a declined one, the fault of the worker: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN attempt.errors IS 'For a failed or declined attempt: the error and its causes, outermost first.';
COMMENT ON COLUMN attempt.epochs IS 'For a completed training job: epochs over all attempts. For a handed-back attempt: the epoch of the saved state.';
COMMENT ON COLUMN attempt.seconds IS 'For a completed training job: seconds over all attempts. For a completed evaluation: seconds spent on this case.';

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
COMMENT ON TABLE epoch_log IS 'One epoch of one training job.';
COMMENT ON COLUMN epoch_log.job IS 'The training job.';
COMMENT ON COLUMN epoch_log.epoch IS 'From 1.';
COMMENT ON COLUMN epoch_log.attempt IS 'The attempt that trained the epoch.';
COMMENT ON COLUMN epoch_log.losses IS 'Mean training losses by name: loss is the total, the others its parts.';
COMMENT ON COLUMN epoch_log.metrics IS 'Metrics on the selection split by name; null if undefined.';
COMMENT ON COLUMN epoch_log.train_seconds IS 'Wall-clock seconds of training.';
COMMENT ON COLUMN epoch_log.eval_seconds IS 'Wall-clock seconds of evaluation.';
COMMENT ON COLUMN epoch_log.best_for IS 'The selection criteria for which this epoch was the best so far.';

CREATE TABLE checkpoint (
    job       uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    criterion text NOT NULL,
    epoch     integer NOT NULL,
    blake3    text NOT NULL,
    bytes     bigint NOT NULL,
    attempt   uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    PRIMARY KEY (job, criterion)
);
COMMENT ON TABLE checkpoint IS 'The best weights of one training job by one selection criterion.';
COMMENT ON COLUMN checkpoint.job IS 'The training job.';
COMMENT ON COLUMN checkpoint.criterion IS 'The selection criterion.';
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
COMMENT ON TABLE evaluation IS 'The evaluation of one selection criterion''s checkpoint on one case.';
COMMENT ON COLUMN evaluation.job IS 'The evaluation job.';
COMMENT ON COLUMN evaluation.criterion IS 'The selection criterion of the checkpoint.';
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
COMMENT ON COLUMN result.criterion IS 'The selection criterion of the checkpoint.';
COMMENT ON COLUMN result.metric IS 'The metric''s id.';
COMMENT ON COLUMN result.value IS 'The value; NULL if undefined, such as the correlation with a constant.';

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
COMMENT ON TABLE other_processor IS 'A result that differs from the first one and was computed on another kind of processor: the first of each kind. That is not a conflict; two that differ on the same kind are.';
COMMENT ON COLUMN other_processor.job IS 'The job.';
COMMENT ON COLUMN other_processor.what IS 'trained, evaluated, or epoch with its number.';
COMMENT ON COLUMN other_processor.processor IS 'The kind of processor, as in attempt.processor.';
COMMENT ON COLUMN other_processor.attempt IS 'The attempt that delivered it.';
COMMENT ON COLUMN other_processor.digest IS 'Hash of the result; a later one of the same kind with another hash is a conflict.';
COMMENT ON COLUMN other_processor.content IS 'The result, without predictions.';
COMMENT ON COLUMN other_processor.noticed IS 'Time of arrival.';

CREATE TABLE dead_letter (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject  text NOT NULL,
    sequence bigint NOT NULL,
    reason   text NOT NULL,
    payload  bytea NOT NULL,
    received timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dead_letter IS 'The last 1000 messages that could not be stored.';
COMMENT ON COLUMN dead_letter.id IS 'Ascending in order of arrival.';
COMMENT ON COLUMN dead_letter.subject IS 'The subject it was published on.';
COMMENT ON COLUMN dead_letter.sequence IS 'Its sequence number in the stream RESULTS.';
COMMENT ON COLUMN dead_letter.reason IS 'Why it was rejected.';
COMMENT ON COLUMN dead_letter.payload IS 'Its first 64 KiB.';
COMMENT ON COLUMN dead_letter.received IS 'Time of arrival.';
