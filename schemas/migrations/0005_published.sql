-- The numbers that the paper prints, their errata, and how ours compare.
--
-- Both tables are loaded from schemas/published.csv and schemas/errata.csv, which are embedded in
-- `coord`: every migration loads them if they have changed.

CREATE TABLE reference_data (
    name   text PRIMARY KEY,
    blake3 text NOT NULL,
    loaded timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reference_data IS 'The versions of the reference files that are loaded.';
COMMENT ON COLUMN reference_data.name IS 'The file''s name under schemas/.';
COMMENT ON COLUMN reference_data.blake3 IS 'BLAKE3 of its content.';
COMMENT ON COLUMN reference_data.loaded IS 'Time of loading.';

CREATE TABLE published (
    table_number integer NOT NULL,
    dataset      text NOT NULL,
    method       text NOT NULL,
    variant      text NOT NULL,
    case_id      text NOT NULL,
    metric       text NOT NULL,
    printed      numeric NOT NULL,
    value        double precision NOT NULL,
    std          double precision,
    PRIMARY KEY (table_number, dataset, method, variant, case_id, metric)
);
COMMENT ON TABLE published IS 'Every number of the paper''s Tables 2 to 14, as printed.';
COMMENT ON COLUMN published.table_number IS 'The table that prints it, 2 to 14.';
COMMENT ON COLUMN published.dataset IS 'mosi, mosei or sims.';
COMMENT ON COLUMN published.method IS 'The method''s id.';
COMMENT ON COLUMN published.variant IS 'The variant''s id, for the ablations and loss weights of Tables 4 to 7; empty for the method itself.';
COMMENT ON COLUMN published.case_id IS 'r=0.3 or missing=la; r=mean and missing=mean for the means over the ten rates and the six sets.';
COMMENT ON COLUMN published.metric IS 'The metric''s id.';
COMMENT ON COLUMN published.printed IS 'The digits in print: percent if the paper prints percent.';
COMMENT ON COLUMN published.value IS 'The same in the unit of result.value: a fraction if the paper prints percent.';
COMMENT ON COLUMN published.std IS 'The standard deviation printed in Table 8, in the same unit.';

CREATE TABLE erratum (
    table_number integer NOT NULL,
    dataset      text NOT NULL,
    method       text NOT NULL,
    variant      text,
    case_id      text,
    metric       text,
    kind         text NOT NULL CHECK (kind IN ('corrected', 'retracted', 'labels_swapped')),
    corrected    double precision,
    source       text NOT NULL CHECK (source IN ('corrigendum', 'repeated', 'computed')),
    why          text NOT NULL,
    CHECK ((kind = 'corrected') = (corrected IS NOT NULL)),
    UNIQUE NULLS NOT DISTINCT (table_number, dataset, method, variant, case_id, metric)
);
COMMENT ON TABLE erratum IS 'The errata of the published numbers.';
COMMENT ON COLUMN erratum.table_number IS 'The table.';
COMMENT ON COLUMN erratum.dataset IS 'mosi, mosei or sims.';
COMMENT ON COLUMN erratum.method IS 'The method''s id.';
COMMENT ON COLUMN erratum.variant IS 'The variant''s id; NULL for the method and all its variants.';
COMMENT ON COLUMN erratum.case_id IS 'The case; NULL for all of them.';
COMMENT ON COLUMN erratum.metric IS 'The metric''s id; NULL for all of them.';
COMMENT ON COLUMN erratum.kind IS 'corrected: the right value is known; retracted: left out of comparisons; labels_swapped: an F1 computed with truth and prediction swapped, compared with our swapped F1.';
COMMENT ON COLUMN erratum.corrected IS 'The right value, in the unit of result.value.';
COMMENT ON COLUMN erratum.source IS 'corrigendum: the authors'' own correction; repeated: the same number as one they corrected; computed: derived from the published numbers.';
COMMENT ON COLUMN erratum.why IS 'What is wrong.';

CREATE VIEW published_number AS
SELECT p.table_number,
       p.dataset,
       p.method,
       p.variant,
       p.case_id,
       p.metric,
       p.printed,
       p.value,
       p.std,
       e.kind AS erratum,
       e.source AS erratum_source,
       e.why AS erratum_why,
       CASE e.kind WHEN 'corrected' THEN e.corrected WHEN 'retracted' THEN NULL ELSE p.value END AS valid,
       CASE WHEN e.kind = 'labels_swapped' THEN p.metric || '_swapped' ELSE p.metric END AS compares_with
FROM published p
LEFT JOIN erratum e
       ON e.table_number = p.table_number AND e.dataset = p.dataset AND e.method = p.method
      AND (e.variant IS NULL OR e.variant = p.variant)
      AND (e.case_id IS NULL OR e.case_id = p.case_id)
      AND (e.metric IS NULL OR e.metric = p.metric);
COMMENT ON VIEW published_number IS 'Every published number with its erratum.';
COMMENT ON COLUMN published_number.table_number IS 'The table that prints it, 2 to 14.';
COMMENT ON COLUMN published_number.dataset IS 'mosi, mosei or sims.';
COMMENT ON COLUMN published_number.method IS 'The method''s id.';
COMMENT ON COLUMN published_number.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN published_number.case_id IS 'r=0.3, missing=la, r=mean or missing=mean.';
COMMENT ON COLUMN published_number.metric IS 'The metric''s id.';
COMMENT ON COLUMN published_number.printed IS 'The digits in print.';
COMMENT ON COLUMN published_number.value IS 'The same in the unit of result.value.';
COMMENT ON COLUMN published_number.std IS 'The standard deviation printed in Table 8.';
COMMENT ON COLUMN published_number.erratum IS 'corrected, retracted or labels_swapped; NULL without an erratum.';
COMMENT ON COLUMN published_number.erratum_source IS 'The source of the erratum; see table erratum.';
COMMENT ON COLUMN published_number.erratum_why IS 'What is wrong.';
COMMENT ON COLUMN published_number.valid IS 'The value to compare with: corrected if it has been, NULL if retracted.';
COMMENT ON COLUMN published_number.compares_with IS 'Our metric that measures the same: the swapped F1 if the published one is swapped.';

CREATE VIEW reproduced AS
SELECT sweep, method, variant, dataset, case_id, metric, mean, std, seeds_completed, seeds_expected
FROM cell
UNION ALL
SELECT sweep, method, variant, dataset, 'r=mean', metric, mean, std, seeds_completed, seeds_expected
FROM table_overall
UNION ALL
SELECT sweep, method, variant, dataset, 'missing=mean', metric, mean, std, seeds_completed, seeds_expected
FROM table_missing_overall;
COMMENT ON VIEW reproduced IS 'Our numbers under the paper''s keys: every cell, and the means over rates and over sets.';
COMMENT ON COLUMN reproduced.sweep IS 'The sweep.';
COMMENT ON COLUMN reproduced.method IS 'The method''s id.';
COMMENT ON COLUMN reproduced.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN reproduced.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN reproduced.case_id IS 'r=0.3, missing=la, r=mean or missing=mean.';
COMMENT ON COLUMN reproduced.metric IS 'The metric''s id.';
COMMENT ON COLUMN reproduced.mean IS 'Mean over seeds and, for r=mean and missing=mean, over cases.';
COMMENT ON COLUMN reproduced.std IS 'Standard deviation over seeds (n - 1) and, for r=mean and missing=mean, averaged over cases.';
COMMENT ON COLUMN reproduced.seeds_completed IS 'Number of completed seeds, at the case with the fewest.';
COMMENT ON COLUMN reproduced.seeds_expected IS 'Number of seeds in the spec.';

-- The published numbers of a protocol are compared with every dataset that follows it, under the
-- dataset's own name.
CREATE VIEW comparison AS
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
       r.seeds_completed,
       r.seeds_expected
FROM published_number p
JOIN benchmark b ON b.follows = p.dataset
JOIN reproduced r
  ON r.dataset = b.name AND r.method = p.method AND r.variant = p.variant
 AND r.case_id = p.case_id AND r.metric = p.compares_with;
COMMENT ON VIEW comparison IS 'Published and reproduced numbers side by side: one row per number of the paper that a sweep covers.';
COMMENT ON COLUMN comparison.sweep IS 'The sweep.';
COMMENT ON COLUMN comparison.table_number IS 'The paper''s table.';
COMMENT ON COLUMN comparison.dataset IS 'Our dataset; the published numbers are those of the protocol it follows.';
COMMENT ON COLUMN comparison.method IS 'The method''s id.';
COMMENT ON COLUMN comparison.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN comparison.case_id IS 'r=0.3, missing=la, r=mean or missing=mean.';
COMMENT ON COLUMN comparison.metric IS 'The id of the paper''s metric.';
COMMENT ON COLUMN comparison.reproduced IS 'Our value of compares_with; NULL until it exists.';
COMMENT ON COLUMN comparison.reproduced_std IS 'The standard deviation of our value over seeds.';
COMMENT ON COLUMN comparison.published IS 'The paper''s value, as printed.';
COMMENT ON COLUMN comparison.published_std IS 'The standard deviation printed in Table 8.';
COMMENT ON COLUMN comparison.valid IS 'The value to compare with; NULL if the published one was retracted.';
COMMENT ON COLUMN comparison.difference IS 'reproduced minus valid.';
COMMENT ON COLUMN comparison.compares_with IS 'Our metric that measures what the paper prints.';
COMMENT ON COLUMN comparison.erratum IS 'corrected, retracted or labels_swapped; NULL without an erratum.';
COMMENT ON COLUMN comparison.erratum_why IS 'What is wrong with the published number.';
COMMENT ON COLUMN comparison.seeds_completed IS 'Number of our completed seeds.';
COMMENT ON COLUMN comparison.seeds_expected IS 'Number of seeds in the spec.';

-- A read-only role. A database whose owner may not create roles
-- goes without it; docs/reference/sql.md says how an administrator adds it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'halfheard_reader') THEN
        CREATE ROLE halfheard_reader NOLOGIN;
        COMMENT ON ROLE halfheard_reader IS 'Reads every table and view of Halfheard; grant it to analysts.';
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role halfheard_reader skipped: this user may not create roles';
    WHEN duplicate_object THEN
        NULL;
END
$$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'halfheard_reader') THEN
        GRANT USAGE ON SCHEMA public TO halfheard_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO halfheard_reader;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO halfheard_reader;
    END IF;
END
$$;
