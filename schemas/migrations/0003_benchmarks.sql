-- The protocol of every dataset that has results. `coord` adds a row, and its rows of table metric, with
-- the first sweep on a dataset of a new name.

CREATE TABLE benchmark (
    name       text PRIMARY KEY,
    follows    text NOT NULL CHECK (follows IN ('mosi', 'mosei', 'sims', 'own')),
    definition jsonb NOT NULL,
    added      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE benchmark IS 'The datasets that have results, by name, with the protocol of each.';
COMMENT ON COLUMN benchmark.name IS 'The dataset''s name in specs and results.';
COMMENT ON COLUMN benchmark.follows IS 'The protocol it follows: mosi, mosei, sims, or own for one of its own.';
COMMENT ON COLUMN benchmark.definition IS 'The protocol: label_range, language, rule (rounded or intervals), classes (count and edges of each accuracy), unimodal.';
COMMENT ON COLUMN benchmark.added IS 'Time of its first use in a sweep.';

INSERT INTO benchmark (name, follows, definition) VALUES
    ('mosi', 'mosi', '{"label_range":[-3.0,3.0],"language":"en","rule":"rounded","classes":[{"count":2,"edges":[]},{"count":5,"edges":[]},{"count":7,"edges":[]}],"unimodal":false}'),
    ('mosei', 'mosei', '{"label_range":[-3.0,3.0],"language":"en","rule":"rounded","classes":[{"count":2,"edges":[]},{"count":5,"edges":[]},{"count":7,"edges":[]}],"unimodal":false}'),
    ('sims', 'sims', '{"label_range":[-1.0,1.0],"language":"zh","rule":"intervals","classes":[{"count":2,"edges":[0.0]},{"count":3,"edges":[-0.1,0.1]},{"count":5,"edges":[-0.7,-0.1,0.1,0.7]}],"unimodal":true}');

-- From which checkpoint each metric is read, and how tables print it.
--
-- Training leaves one checkpoint per selection criterion, and every metric is measured with every
-- checkpoint. The value that counts is the one from the checkpoint of the metric's own family.

CREATE TABLE metric (
    dataset          text NOT NULL,
    metric           text NOT NULL,
    position         integer NOT NULL,
    name             text NOT NULL,
    criterion        text NOT NULL,
    higher_is_better boolean NOT NULL,
    percent          boolean NOT NULL,
    decimals         integer NOT NULL,
    in_paper         boolean NOT NULL,
    PRIMARY KEY (dataset, metric)
);
COMMENT ON TABLE metric IS 'The metrics of each dataset: the checkpoint they are read from, and how they are printed.';
COMMENT ON COLUMN metric.dataset IS 'mosi, mosei, sims, or the name of another dataset (table benchmark).';
COMMENT ON COLUMN metric.metric IS 'The metric''s id, as in result.metric.';
COMMENT ON COLUMN metric.position IS 'Its position in the paper''s tables, from 1; metrics that the paper does not print follow.';
COMMENT ON COLUMN metric.name IS 'Its name in tables.';
COMMENT ON COLUMN metric.criterion IS 'The selection criterion of its family, whose checkpoint it is read from.';
COMMENT ON COLUMN metric.higher_is_better IS 'Whether a higher value is better.';
COMMENT ON COLUMN metric.percent IS 'Whether it is stored as a fraction and printed in percent.';
COMMENT ON COLUMN metric.decimals IS 'Decimals in print, after conversion to percent.';
COMMENT ON COLUMN metric.in_paper IS 'Whether the paper''s tables contain it.';

INSERT INTO metric (dataset, metric, position, name, criterion, higher_is_better, percent, decimals, in_paper)
SELECT dataset, metric, position, name, criterion, higher, percent, CASE WHEN percent THEN 2 ELSE 3 END, in_paper
FROM (VALUES ('mosi'), ('mosei')) AS d (dataset)
CROSS JOIN (VALUES
    ('acc7',               1,  'Acc-7',                   'acc7',         true,  true,  true),
    ('acc5',               2,  'Acc-5',                   'acc5',         true,  true,  true),
    ('acc2_nonzero',       3,  'Acc-2 (neg/pos)',         'acc2_nonzero', true,  true,  true),
    ('acc2_nonneg',        4,  'Acc-2 (neg/non-neg)',     'acc2_nonneg',  true,  true,  true),
    ('f1_nonzero',         5,  'F1 (neg/pos)',            'acc2_nonzero', true,  true,  true),
    ('f1_nonneg',          6,  'F1 (neg/non-neg)',        'acc2_nonneg',  true,  true,  true),
    ('mae',                7,  'MAE',                     'mae',          false, false, true),
    ('corr',               8,  'Corr',                    'mae',          true,  false, true),
    ('f1_nonzero_swapped', 9,  'F1 swapped (neg/pos)',    'acc2_nonzero', true,  true,  false),
    ('f1_nonneg_swapped',  10, 'F1 swapped (neg/non-neg)', 'acc2_nonneg', true,  true,  false),
    ('laziness',           11, 'Laziness',                'acc7',         false, true,  false)
) AS m (metric, position, name, criterion, higher, percent, in_paper);

INSERT INTO metric (dataset, metric, position, name, criterion, higher_is_better, percent, decimals, in_paper)
SELECT 'sims', metric, position, name, criterion, higher, percent, CASE WHEN percent THEN 2 ELSE 3 END, in_paper
FROM (VALUES
    ('acc5',       1, 'Acc-5',      'acc5', true,  true,  true),
    ('acc3',       2, 'Acc-3',      'acc3', true,  true,  true),
    ('acc2',       3, 'Acc-2',      'acc2', true,  true,  true),
    ('f1',         4, 'F1',         'acc2', true,  true,  true),
    ('mae',        5, 'MAE',        'mae',  false, false, true),
    ('corr',       6, 'Corr',       'mae',  true,  false, true),
    ('f1_swapped', 7, 'F1 swapped', 'acc2', true,  true,  false),
    ('laziness',   8, 'Laziness',   'acc5', false, true,  false)
) AS m (metric, position, name, criterion, higher, percent, in_paper);
