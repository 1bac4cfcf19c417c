-- Means and deviations of floating-point numbers depend on the order in which they are added, and
-- rows lie in the order in which results happened to arrive. Added in the order of seeds, rates and
-- sets, the same results give the same bits whatever was killed on the way.

CREATE OR REPLACE VIEW cell AS
SELECT sweep,
       method,
       variant,
       dataset,
       case_id,
       split_part(case_id, '=', 1) AS kind,
       CASE WHEN case_id LIKE 'r=%' THEN substr(case_id, 3)::numeric END AS rate,
       CASE WHEN case_id LIKE 'missing=%' THEN substr(case_id, 9) END AS missing,
       metric,
       avg(value ORDER BY seed) AS mean,
       stddev_samp(value ORDER BY seed) AS std,
       min(value) AS least,
       max(value) AS most,
       count(*) FILTER (WHERE state = 'done') AS seeds_done,
       count(*) AS seeds_asked,
       count(*) FILTER (WHERE state = 'done' AND value IS NULL) AS seeds_undefined
FROM measurement
GROUP BY sweep, method, variant, dataset, case_id, metric;

CREATE OR REPLACE VIEW table_overall AS
SELECT sweep,
       method,
       variant,
       dataset,
       metric,
       CASE WHEN bool_and(seeds_done > 0) THEN avg(mean ORDER BY rate) END AS mean,
       CASE WHEN bool_and(seeds_done > 0) THEN avg(std ORDER BY rate) END AS std,
       count(*) FILTER (WHERE seeds_done > 0) AS cells_done,
       count(*) AS cells_asked,
       count(*) FILTER (WHERE seeds_done > 0 AND mean IS NULL) AS cells_undefined,
       min(seeds_done) AS seeds_done,
       max(seeds_asked) AS seeds_asked
FROM table_rate
GROUP BY sweep, method, variant, dataset, metric;

CREATE OR REPLACE VIEW table_missing_overall AS
SELECT sweep,
       method,
       variant,
       dataset,
       metric,
       CASE WHEN bool_and(seeds_done > 0) THEN avg(mean ORDER BY missing) END AS mean,
       CASE WHEN bool_and(seeds_done > 0) THEN avg(std ORDER BY missing) END AS std,
       count(*) FILTER (WHERE seeds_done > 0) AS cells_done,
       count(*) AS cells_asked,
       count(*) FILTER (WHERE seeds_done > 0 AND mean IS NULL) AS cells_undefined,
       min(seeds_done) AS seeds_done,
       max(seeds_asked) AS seeds_asked
FROM table_missing
GROUP BY sweep, method, variant, dataset, metric;
