-- On what kind of processor something was computed: the last bits of its results depend on it.

ALTER TABLE attempt ADD COLUMN processor text NOT NULL DEFAULT '';
COMMENT ON COLUMN attempt.processor IS 'What the last bits of its results depend on: instruction set, maker and threads of the processor, or the GPU; portable where they do not; several with + between them, in order, where a training went on on another. Empty: not known.';

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

CREATE OR REPLACE VIEW provenance AS
SELECT e.sweep,
       e.id AS job,
       e.method,
       e.variant,
       e.dataset,
       e.seed,
       e.case_id,
       v.criterion,
       v.epoch,
       k.blake3 AS checkpoint,
       c.spec #>> '{data,blake3}' AS data,
       c.spec #>> '{encoder,blake3}' AS encoder,
       c.spec #>> '{protocol,selection}' AS selection,
       c.spec #>> '{protocol,fidelity}' AS fidelity,
       t.worker AS trained_by,
       t.device AS trained_on,
       t.version AS trained_with,
       a.worker AS evaluated_by,
       a.device AS evaluated_on,
       a.version AS evaluated_with,
       coalesce(c.spec ->> 'numerics', 'machine') AS numerics,
       t.processor AS trained_processor,
       a.processor AS evaluated_processor
FROM job e
JOIN evaluation v ON v.job = e.id
JOIN attempt a ON a.id = v.attempt
LEFT JOIN config c ON c.id = e.config
LEFT JOIN checkpoint k ON k.job = e.train_job AND k.criterion = v.criterion
LEFT JOIN attempt t ON t.id = k.attempt;
COMMENT ON COLUMN provenance.numerics IS 'machine: the same bits on the same kind of processor; portable: on every x86-64 with AVX2.';
COMMENT ON COLUMN provenance.trained_processor IS 'The kind of processor that it was trained on; see attempt.processor.';
COMMENT ON COLUMN provenance.evaluated_processor IS 'The kind of processor that it was evaluated on.';
