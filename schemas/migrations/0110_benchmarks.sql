-- Datasets of one's own: results are kept under a dataset's name, and the name says nothing of its
-- protocol. Here it does. `coord` adds a row, and rows of table metric, with the first sweep that
-- has a dataset of a new name.

CREATE TABLE benchmark (
    name       text PRIMARY KEY,
    follows    text NOT NULL CHECK (follows IN ('mosi', 'mosei', 'sims', 'own')),
    definition jsonb NOT NULL,
    added      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE benchmark IS 'The datasets that results are kept of, by name, with the protocol that each follows.';
COMMENT ON COLUMN benchmark.name IS 'The dataset''s name in specs and results.';
COMMENT ON COLUMN benchmark.follows IS 'Whose protocol it follows: mosi, mosei or sims; own: one of its own.';
COMMENT ON COLUMN benchmark.definition IS 'The protocol: label_range, language, rule (rounded or intervals), classes (count and edges of each accuracy), unimodal.';
COMMENT ON COLUMN benchmark.added IS 'When a sweep first had it.';

INSERT INTO benchmark (name, follows, definition) VALUES
    ('mosi', 'mosi', '{"label_range":[-3.0,3.0],"language":"en","rule":"rounded","classes":[{"count":2,"edges":[]},{"count":5,"edges":[]},{"count":7,"edges":[]}],"unimodal":false}'),
    ('mosei', 'mosei', '{"label_range":[-3.0,3.0],"language":"en","rule":"rounded","classes":[{"count":2,"edges":[]},{"count":5,"edges":[]},{"count":7,"edges":[]}],"unimodal":false}'),
    ('sims', 'sims', '{"label_range":[-1.0,1.0],"language":"zh","rule":"intervals","classes":[{"count":2,"edges":[0.0]},{"count":3,"edges":[-0.1,0.1]},{"count":5,"edges":[-0.7,-0.1,0.1,0.7]}],"unimodal":true}');

COMMENT ON COLUMN metric.dataset IS 'mosi, mosei, sims, or the name of another dataset (table benchmark).';
COMMENT ON COLUMN job.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN measurement.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN cell.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_rate.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_missing.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_overall.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_missing_overall.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN job_status.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN failures.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN epoch.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN provenance.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN reproduced.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN dataset.name IS 'The protocol that the file follows: mosi, mosei or sims; own: one of its own.';

-- The published numbers of a protocol are compared with every dataset that follows it, under the
-- dataset's own name.
CREATE OR REPLACE VIEW comparison AS
SELECT r.sweep,
       p.table_number,
       r.dataset,
       p.method,
       p.variant,
       p.case_id,
       p.metric,
       r.mean AS reproduced,
       r.std AS reproduced_std,
       p.value AS published,
       p.std AS published_std,
       p.valid,
       r.mean - p.valid AS difference,
       p.compares_with,
       p.erratum,
       p.erratum_why,
       r.seeds_done,
       r.seeds_asked
FROM published_number p
JOIN benchmark b ON b.follows = p.dataset
JOIN reproduced r
  ON r.dataset = b.name AND r.method = p.method AND r.variant = p.variant
 AND r.case_id = p.case_id AND r.metric = p.compares_with;
COMMENT ON COLUMN comparison.dataset IS 'The dataset of ours; the published numbers are those of the protocol that it follows.';
