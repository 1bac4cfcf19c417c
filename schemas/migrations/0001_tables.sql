-- What halfheard knows: sweeps, their jobs, who worked on them, and what came out.
--
-- Written by `coord` alone. Every row that comes from a message has a key that derives from
-- content, so that a message that comes twice changes nothing.

CREATE TYPE sweep_state AS ENUM ('running', 'paused', 'cancelled');
COMMENT ON TYPE sweep_state IS 'What an operator wants of a sweep; whether it is finished follows from its jobs.';

CREATE TYPE job_kind AS ENUM ('train', 'eval', 'noop');
COMMENT ON TYPE job_kind IS 'train: trains one model; eval: evaluates one trained model on one case; noop: measures the path itself.';

CREATE TYPE job_state AS ENUM ('blocked', 'ready', 'queued', 'running', 'done', 'failed', 'cancelled');
COMMENT ON TYPE job_state IS 'See table job_transition for what may follow what.';

CREATE TYPE attempt_outcome AS ENUM ('done', 'failed', 'handed_back', 'lost');
COMMENT ON TYPE attempt_outcome IS 'done: it delivered a result; failed: it ended with an error; handed_back: its worker was told to leave, or, where failure_kind says so, could not do it for a reason of its own; lost: another attempt at the same job began before it said how it ended.';

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
COMMENT ON COLUMN sweep.id IS 'Derives from the resolved spec and the nonce: the same spec submitted twice is the same sweep.';
COMMENT ON COLUMN sweep.name IS 'The name in the spec; several sweeps may share it.';
COMMENT ON COLUMN sweep.nonce IS 'Set by `coord submit --new`, to make another sweep of the same spec.';
COMMENT ON COLUMN sweep.spec IS 'The spec as it was written, in TOML.';
COMMENT ON COLUMN sweep.resolved IS 'The spec with every default, hash and hyper-parameter filled in.';
COMMENT ON COLUMN sweep.priority IS 'A sweep with a higher one is served first.';
COMMENT ON COLUMN sweep.state IS 'What the operator wants.';
COMMENT ON COLUMN sweep.train_jobs IS 'How many training jobs it has.';
COMMENT ON COLUMN sweep.eval_jobs IS 'How many evaluation jobs it has.';
COMMENT ON COLUMN sweep.noop_jobs IS 'How many no-op jobs it has.';
COMMENT ON COLUMN sweep.created IS 'When it was submitted first.';
COMMENT ON COLUMN sweep.changed IS 'When its state changed last.';

CREATE TABLE config (
    id    uuid PRIMARY KEY,
    spec  jsonb NOT NULL
);
COMMENT ON TABLE config IS 'What is trained, without the seed: shared by the jobs that differ only in seed and case.';
COMMENT ON COLUMN config.id IS 'Derives from the content of spec.';
COMMENT ON COLUMN config.spec IS 'The training spec as workers get it, seed 0: method, variant, dataset, hashes of data and encoder, protocol, all hyper-parameters.';

CREATE TABLE dataset (
    blake3      text PRIMARY KEY,
    name        text NOT NULL,
    train_samples integer NOT NULL,
    valid_samples integer NOT NULL,
    test_samples  integer NOT NULL,
    test_labels bytea NOT NULL,
    added       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dataset IS 'The dataset files that sweeps used, with the labels that predictions are compared with.';
COMMENT ON COLUMN dataset.blake3 IS 'BLAKE3 of the imported file, 64 hexadecimal digits.';
COMMENT ON COLUMN dataset.name IS 'The protocol that the file follows: mosi, mosei or sims; own: one of its own.';
COMMENT ON COLUMN dataset.train_samples IS 'Samples of the training split.';
COMMENT ON COLUMN dataset.valid_samples IS 'Samples of the validation split.';
COMMENT ON COLUMN dataset.test_samples IS 'Samples of the test split.';
COMMENT ON COLUMN dataset.test_labels IS 'The labels of the test split: little-endian 32-bit floats in the order of the file, the order of prediction.data.';
COMMENT ON COLUMN dataset.added IS 'When a sweep used it first.';

-- A million rows must go in with one COPY in seconds: narrow rows, few indexes, checks as CHECK
-- and not as triggers. `state` is changed only as table job_transition allows.
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
COMMENT ON TABLE job IS 'One training, one evaluation or one no-op of one sweep. A row in state ready is the outbox: it is what says that a message must be sent.';
COMMENT ON COLUMN job.id IS 'Derives from the sweep and the job''s content.';
COMMENT ON COLUMN job.sweep IS 'Its sweep.';
COMMENT ON COLUMN job.position IS 'Its place in the order of the sweep.';
COMMENT ON COLUMN job.kind IS 'What kind of work.';
COMMENT ON COLUMN job.method IS 'The method''s id, lnln.';
COMMENT ON COLUMN job.variant IS 'The variant''s id, no-dmc; empty for the method itself.';
COMMENT ON COLUMN job.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN job.seed IS 'The training seed.';
COMMENT ON COLUMN job.case_id IS 'The case of an evaluation: r=0.3 or missing=la. NULL for the other kinds.';
COMMENT ON COLUMN job.train_job IS 'The training job whose model an evaluation uses.';
COMMENT ON COLUMN job.config IS 'What is trained; see table config. For an evaluation: what was trained.';
COMMENT ON COLUMN job.state IS 'Where it stands; see table job_transition.';
COMMENT ON COLUMN job.publication IS 'How often it has been published; a retry is a new publication.';
COMMENT ON COLUMN job.publications_before IS 'How many of its publications do not count as tries: those from before it was set going again, by an operator or because its message was lost. Of the others, each beyond failures + 1 was declined by a worker for a fault of its own.';
COMMENT ON COLUMN job.failures IS 'How many attempts failed with an error.';
COMMENT ON COLUMN job.not_before IS 'A ready job is not published before this time: the delay of a retry.';
COMMENT ON COLUMN job.attempt IS 'The attempt that began last.';
COMMENT ON COLUMN job.outcome IS 'First 16 bytes of BLAKE3 over the first result; a later result with another hash is a conflict.';
COMMENT ON COLUMN job.last_error IS 'The last failure, outermost error first.';
COMMENT ON COLUMN job.started IS 'When its first attempt began; of an evaluation that is done, when the work on this very case began.';
COMMENT ON COLUMN job.finished IS 'When it was done, failed or cancelled.';
COMMENT ON COLUMN job.changed IS 'When its state changed last.';

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
COMMENT ON TABLE attempt IS 'One delivery of one job to one worker, and how it ended.';
COMMENT ON COLUMN attempt.id IS 'Given by the worker.';
COMMENT ON COLUMN attempt.job IS 'Its job.';
COMMENT ON COLUMN attempt.publication IS 'The publication of the job that was delivered.';
COMMENT ON COLUMN attempt.delivery IS 'How often the broker had delivered that publication, from 1.';
COMMENT ON COLUMN attempt.worker IS 'The worker''s unique name.';
COMMENT ON COLUMN attempt.host IS 'Its machine.';
COMMENT ON COLUMN attempt.device IS 'cpu, or the GPU''s name.';
COMMENT ON COLUMN attempt.version IS 'The worker''s version and revision.';
COMMENT ON COLUMN attempt.processor IS 'What the last bits of its results depend on: instruction set, maker and threads of the processor, or the GPU; portable where they do not; several with + between them, in order, where a training went on on another. Empty: not known.';
COMMENT ON COLUMN attempt.started IS 'When it began, by the worker''s clock. Cases are evaluated together: of an evaluation that is done, the end less its own seconds.';
COMMENT ON COLUMN attempt.resumed_after_epoch IS 'The last epoch that an earlier attempt had completed; 0 for a fresh start.';
COMMENT ON COLUMN attempt.ended IS 'When it ended, by the worker''s clock; of a lost attempt, when it was found to be lost.';
COMMENT ON COLUMN attempt.outcome IS 'How it ended; NULL while it runs.';
COMMENT ON COLUMN attempt.failure_kind IS 'Of a failed one: permanent, retryable, non_finite or crashed. Of one handed back for a fault of its worker: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN attempt.errors IS 'Of a failed one, or of one handed back for a fault of its worker: the error and its causes, outermost first.';
COMMENT ON COLUMN attempt.epochs IS 'Of a training that is done: epochs trained over all attempts. Of one handed back: the epoch its saved state holds.';
COMMENT ON COLUMN attempt.seconds IS 'Of a training that is done: seconds spent over all attempts. Of an evaluation that is done: seconds spent on this case.';

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
COMMENT ON TABLE epoch_log IS 'One epoch of one training.';
COMMENT ON COLUMN epoch_log.job IS 'The training job.';
COMMENT ON COLUMN epoch_log.epoch IS 'From 1.';
COMMENT ON COLUMN epoch_log.attempt IS 'The attempt that trained it.';
COMMENT ON COLUMN epoch_log.losses IS 'Mean training losses by name: loss is the whole, the others its parts.';
COMMENT ON COLUMN epoch_log.metrics IS 'Metrics on the selection split by name; null where undefined.';
COMMENT ON COLUMN epoch_log.train_seconds IS 'Wall seconds of training.';
COMMENT ON COLUMN epoch_log.eval_seconds IS 'Wall seconds of evaluation.';
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
COMMENT ON TABLE checkpoint IS 'The best weights of one training by one selection criterion.';
COMMENT ON COLUMN checkpoint.job IS 'The training job.';
COMMENT ON COLUMN checkpoint.criterion IS 'The selection criterion.';
COMMENT ON COLUMN checkpoint.epoch IS 'The epoch they were taken after.';
COMMENT ON COLUMN checkpoint.blake3 IS 'BLAKE3 of the file: its name in the artifact store, checkpoints/<blake3>.safetensors.';
COMMENT ON COLUMN checkpoint.bytes IS 'Size of the file.';
COMMENT ON COLUMN checkpoint.attempt IS 'The attempt that delivered it.';

CREATE TABLE prediction (
    job     uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    number  integer NOT NULL,
    samples integer NOT NULL,
    data    bytea NOT NULL,
    PRIMARY KEY (job, number)
);
-- Float bits do not compress; trying costs time on every insert.
ALTER TABLE prediction ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE prediction IS 'The distinct prediction vectors of one evaluation; criteria whose checkpoint is the same share one.';
COMMENT ON COLUMN prediction.job IS 'The evaluation job.';
COMMENT ON COLUMN prediction.number IS 'From 0; evaluation.prediction points here.';
COMMENT ON COLUMN prediction.samples IS 'How many samples.';
COMMENT ON COLUMN prediction.data IS 'Little-endian 32-bit floats in the order of the test split.';

CREATE TABLE evaluation (
    job        uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    criterion  text NOT NULL,
    epoch      integer NOT NULL,
    prediction integer NOT NULL,
    attempt    uuid NOT NULL REFERENCES attempt ON DELETE CASCADE,
    PRIMARY KEY (job, criterion),
    FOREIGN KEY (job, prediction) REFERENCES prediction (job, number) ON DELETE CASCADE
);
COMMENT ON TABLE evaluation IS 'One selection criterion''s checkpoint evaluated on one case.';
COMMENT ON COLUMN evaluation.job IS 'The evaluation job.';
COMMENT ON COLUMN evaluation.criterion IS 'The selection criterion of the checkpoint.';
COMMENT ON COLUMN evaluation.epoch IS 'The epoch the checkpoint was taken after.';
COMMENT ON COLUMN evaluation.prediction IS 'Its predictions: prediction.number of the same job.';
COMMENT ON COLUMN evaluation.attempt IS 'The attempt that delivered it: leads to worker, device and version.';

CREATE TABLE result (
    job       uuid NOT NULL,
    criterion text NOT NULL,
    metric    text NOT NULL,
    value     double precision,
    PRIMARY KEY (job, criterion, metric) INCLUDE (value),
    FOREIGN KEY (job, criterion) REFERENCES evaluation ON DELETE CASCADE,
    CHECK (value <> 'NaN'::double precision)
);
COMMENT ON TABLE result IS 'One metric of one selection criterion''s checkpoint on one case, as it was measured: fractions from 0 to 1 except mae and corr; nothing is rounded.';
COMMENT ON COLUMN result.job IS 'The evaluation job.';
COMMENT ON COLUMN result.criterion IS 'The selection criterion of the checkpoint.';
COMMENT ON COLUMN result.metric IS 'The metric''s id.';
COMMENT ON COLUMN result.value IS 'The value; NULL where it is undefined, as a correlation with a constant is.';

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
COMMENT ON TABLE conflict IS 'A result that differs from one already there. The first one stays; this is the other.';
COMMENT ON COLUMN conflict.job IS 'The job.';
COMMENT ON COLUMN conflict.attempt IS 'The attempt that delivered the other result.';
COMMENT ON COLUMN conflict.what IS 'trained, evaluated, or epoch and its number.';
COMMENT ON COLUMN conflict.kept IS 'Hash of what stays.';
COMMENT ON COLUMN conflict.refused IS 'Hash of what was refused.';
COMMENT ON COLUMN conflict.content IS 'What was refused, without predictions.';
COMMENT ON COLUMN conflict.noticed IS 'When it came.';

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
COMMENT ON TABLE other_processor IS 'A result that differs from the one that stands and was computed on another kind of processor: the first of each kind. That is no conflict; two that differ on the same kind are one.';
COMMENT ON COLUMN other_processor.job IS 'The job.';
COMMENT ON COLUMN other_processor.what IS 'trained, evaluated, or epoch and its number.';
COMMENT ON COLUMN other_processor.processor IS 'The kind of processor; see attempt.processor.';
COMMENT ON COLUMN other_processor.attempt IS 'The attempt that delivered it.';
COMMENT ON COLUMN other_processor.digest IS 'Its hash; a later result of the same kind with another hash is a conflict.';
COMMENT ON COLUMN other_processor.content IS 'The result, without predictions.';
COMMENT ON COLUMN other_processor.noticed IS 'When it came.';

CREATE TABLE dead_letter (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject  text NOT NULL,
    sequence bigint NOT NULL,
    reason   text NOT NULL,
    payload  bytea NOT NULL,
    received timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE dead_letter IS 'Messages that could not be taken in, the last 1000 of them.';
COMMENT ON COLUMN dead_letter.id IS 'In order of arrival.';
COMMENT ON COLUMN dead_letter.subject IS 'The subject it came on.';
COMMENT ON COLUMN dead_letter.sequence IS 'Its sequence number in the stream RESULTS.';
COMMENT ON COLUMN dead_letter.reason IS 'Why it was not taken in.';
COMMENT ON COLUMN dead_letter.payload IS 'Its first 64 KiB.';
COMMENT ON COLUMN dead_letter.received IS 'When it came.';
