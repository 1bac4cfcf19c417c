-- The views that tables, `coord status` and analysts read. Their names and columns are stable; docs/reference/sql.md
-- shows how to use them. Values are fractions from 0 to 1 except mae and corr; nothing is rounded.
--
-- Means and deviations of floating-point numbers depend on the order of the additions, and rows are
-- stored in the order in which results arrived. Means over seeds are therefore those of exact sums, and
-- means over rates or sets are taken in their order: the same results give the same bits, whatever was
-- killed on the way.
--
-- A job that several sweeps ask for has a row under each of them.

-- A case in its text form, taken apart: what is done to the test split, and the erasure seed that decides where.

CREATE FUNCTION case_damage(case_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN split_part(case_id, '@', 1);
COMMENT ON FUNCTION case_damage IS 'The case without its mask: r=0.3 of r=0.3@1112.';

CREATE FUNCTION case_mask(case_id text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN nullif(split_part(case_id, '@', 2), '')::bigint;
COMMENT ON FUNCTION case_mask IS 'The erasure seed of a case, 1112 of r=0.3@1112; NULL for that of the sweep.';

CREATE FUNCTION case_kind(case_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN case_id LIKE '%+missing=%' THEN 'r+missing'
    WHEN case_id LIKE 'l=%' THEN 'l,a,v'
    ELSE split_part(case_id, '=', 1)
END;
COMMENT ON FUNCTION case_kind IS 'The kind of a case: r, missing, r+missing, mr, l,a,v, block, bursts, asr, noise, permuted or averaged.';

CREATE FUNCTION case_rate(case_id text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(case_id FROM '^r=([0-9.]+)')::numeric;
COMMENT ON FUNCTION case_rate IS 'The rate of the kinds r and r+missing; NULL for others.';

CREATE FUNCTION case_missing(case_id text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(case_id FROM 'missing=([lav]+)');
COMMENT ON FUNCTION case_missing IS 'The wholly missing modalities of the kinds missing and r+missing; NULL for others.';

CREATE VIEW measurement AS
SELECT w.sweep,
       e.method,
       e.variant,
       e.dataset,
       e.seed,
       e.case_id,
       m.metric,
       r.value,
       e.id AS job,
       e.state,
       e.train_job,
       m.criterion
FROM sweep_job w
JOIN job e ON e.id = w.job
JOIN metric m ON m.dataset = e.dataset
LEFT JOIN result r ON r.job = e.id AND r.criterion = m.criterion AND r.metric = m.metric
WHERE e.kind = 'eval';
COMMENT ON VIEW measurement IS 'One metric of one seed on one case, from the checkpoint of the metric''s own family. Unfinished evaluations have rows too, in another state than done.';
COMMENT ON COLUMN measurement.sweep IS 'The sweep.';
COMMENT ON COLUMN measurement.method IS 'The method''s id.';
COMMENT ON COLUMN measurement.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN measurement.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN measurement.seed IS 'The training seed.';
COMMENT ON COLUMN measurement.case_id IS 'The case: r=0.3, missing=la, block=0.5@1112.';
COMMENT ON COLUMN measurement.metric IS 'The metric''s id.';
COMMENT ON COLUMN measurement.value IS 'The value; NULL if the evaluation is not done or the metric is undefined (a correlation with a constant).';
COMMENT ON COLUMN measurement.job IS 'The evaluation job.';
COMMENT ON COLUMN measurement.state IS 'The state of that job.';
COMMENT ON COLUMN measurement.train_job IS 'The training job of the model.';
COMMENT ON COLUMN measurement.criterion IS 'The selection criterion whose checkpoint it is read from.';

-- Read from tables tally and tally_metric, whose sums are exact: a million evaluations are not read again each time.
CREATE VIEW cell AS
SELECT c.sweep,
       c.method,
       c.variant,
       c.dataset,
       c.case_id,
       c.kind,
       c.rate,
       c.missing,
       c.amount,
       c.modalities,
       c.mask,
       m.metric,
       fixed_mean(v.total, v.defined) AS mean,
       fixed_std(v.total, v.squares, v.defined) AS std,
       v.min,
       v.max,
       c.completed AS seeds_completed,
       c.expected AS seeds_expected,
       greatest(c.completed - coalesce(v.defined, 0), 0) AS seeds_undefined
FROM (
    -- What a case's name says is taken apart here, once for each case rather than for each of its metrics.
    SELECT sweep, method, variant, dataset, case_id,
           case_kind(case_id) AS kind,
           case_rate(case_id) AS rate,
           case_missing(case_id) AS missing,
           substring(case_id FROM '^(?:mr|block|bursts|asr|noise|r)=([0-9.]+)')::numeric AS amount,
           substring(case_id FROM '(?:missing|permuted|averaged)=([lav]+)') AS modalities,
           case_mask(case_id) AS mask,
           sum(jobs)::bigint AS expected,
           coalesce(sum(jobs) FILTER (WHERE state = 'done'), 0)::bigint AS completed
    FROM tally
    WHERE kind = 'eval'
    GROUP BY sweep, method, variant, dataset, case_id
    HAVING sum(jobs) > 0
) c
JOIN metric m ON m.dataset = c.dataset
LEFT JOIN (
    SELECT sweep, method, variant, dataset, case_id, metric, sum(defined)::bigint AS defined, sum(total) AS total,
           sum(squares) AS squares, min(low) AS min, max(high) AS max
    FROM tally_metric
    WHERE NOT on_test
    GROUP BY sweep, method, variant, dataset, case_id, metric
) v ON v.sweep = c.sweep AND v.method = c.method AND v.variant = c.variant AND v.dataset = c.dataset
   AND v.case_id = c.case_id AND v.metric = m.metric;
COMMENT ON VIEW cell IS 'One metric of one method on one case: the mean over seeds.';
COMMENT ON COLUMN cell.sweep IS 'The sweep.';
COMMENT ON COLUMN cell.method IS 'The method''s id.';
COMMENT ON COLUMN cell.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN cell.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN cell.case_id IS 'The case: r=0.3, missing=la, block=0.5@1112.';
COMMENT ON COLUMN cell.kind IS 'The kind of the case: r, missing, r+missing, mr, l,a,v, block, bursts, asr, noise, permuted or averaged.';
COMMENT ON COLUMN cell.rate IS 'The missing rate of the kinds r and r+missing; NULL for others.';
COMMENT ON COLUMN cell.missing IS 'The wholly missing modalities, la, of the kinds missing and r+missing; NULL for others.';
COMMENT ON COLUMN cell.amount IS 'How much is damaged, for kinds with one number: a rate or, of noise, standard deviations; NULL for others.';
COMMENT ON COLUMN cell.modalities IS 'The modalities that are missing, permuted or averaged; NULL for kinds that do not name them.';
COMMENT ON COLUMN cell.mask IS 'The erasure seed of the case; NULL for that of the sweep.';
COMMENT ON COLUMN cell.metric IS 'The metric''s id.';
COMMENT ON COLUMN cell.mean IS 'Mean over the completed seeds for which it is defined; NULL if there are none.';
COMMENT ON COLUMN cell.std IS 'Sample standard deviation (n - 1) over the same seeds; NULL with fewer than two.';
COMMENT ON COLUMN cell.min IS 'Minimum over the same seeds.';
COMMENT ON COLUMN cell.max IS 'Maximum over the same seeds.';
COMMENT ON COLUMN cell.seeds_completed IS 'Number of completed seeds.';
COMMENT ON COLUMN cell.seeds_expected IS 'Number of seeds in the spec.';
COMMENT ON COLUMN cell.seeds_undefined IS 'Number of completed seeds for which the metric is undefined.';

CREATE VIEW table_rate AS
SELECT sweep, method, variant, dataset, rate, metric, mean, std, seeds_completed, seeds_expected, seeds_undefined
FROM cell
WHERE kind = 'r' AND mask IS NULL;
COMMENT ON VIEW table_rate IS 'Tables 9 (MOSI, MOSEI) and 10 (SIMS): each metric at each missing rate, by the sweep''s own mask.';
COMMENT ON COLUMN table_rate.sweep IS 'The sweep.';
COMMENT ON COLUMN table_rate.method IS 'The method''s id.';
COMMENT ON COLUMN table_rate.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN table_rate.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_rate.rate IS 'The missing rate.';
COMMENT ON COLUMN table_rate.metric IS 'The metric''s id.';
COMMENT ON COLUMN table_rate.mean IS 'Mean over seeds.';
COMMENT ON COLUMN table_rate.std IS 'Standard deviation over seeds (n - 1).';
COMMENT ON COLUMN table_rate.seeds_completed IS 'Number of completed seeds.';
COMMENT ON COLUMN table_rate.seeds_expected IS 'Number of seeds in the spec.';
COMMENT ON COLUMN table_rate.seeds_undefined IS 'Number of completed seeds for which the metric is undefined.';

CREATE VIEW table_missing AS
SELECT sweep, method, variant, dataset, missing, metric, mean, std, seeds_completed, seeds_expected, seeds_undefined
FROM cell
WHERE kind = 'missing';
COMMENT ON VIEW table_missing IS 'Tables 13 (MOSI, MOSEI) and 14 (SIMS): each metric with each set of missing modalities.';
COMMENT ON COLUMN table_missing.sweep IS 'The sweep.';
COMMENT ON COLUMN table_missing.method IS 'The method''s id.';
COMMENT ON COLUMN table_missing.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN table_missing.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_missing.missing IS 'The missing modalities: l, a, v, la, lv or av.';
COMMENT ON COLUMN table_missing.metric IS 'The metric''s id.';
COMMENT ON COLUMN table_missing.mean IS 'Mean over seeds.';
COMMENT ON COLUMN table_missing.std IS 'Standard deviation over seeds (n - 1).';
COMMENT ON COLUMN table_missing.seeds_completed IS 'Number of completed seeds.';
COMMENT ON COLUMN table_missing.seeds_expected IS 'Number of seeds in the spec.';
COMMENT ON COLUMN table_missing.seeds_undefined IS 'Number of completed seeds for which the metric is undefined.';

CREATE VIEW table_overall AS
SELECT sweep,
       method,
       variant,
       dataset,
       metric,
       CASE WHEN bool_and(seeds_completed > 0) THEN avg(mean ORDER BY rate) END AS mean,
       CASE WHEN bool_and(seeds_completed > 0) THEN avg(std ORDER BY rate) END AS std,
       count(*) FILTER (WHERE seeds_completed > 0) AS cells_completed,
       count(*) AS cells_expected,
       count(*) FILTER (WHERE seeds_completed > 0 AND mean IS NULL) AS cells_undefined,
       min(seeds_completed) AS seeds_completed,
       max(seeds_expected) AS seeds_expected
FROM table_rate
GROUP BY sweep, method, variant, dataset, metric;
COMMENT ON VIEW table_overall IS 'Tables 2 (MOSI, MOSEI) and 3 (SIMS): the mean over the missing rates of the means over seeds.';
COMMENT ON COLUMN table_overall.sweep IS 'The sweep.';
COMMENT ON COLUMN table_overall.method IS 'The method''s id.';
COMMENT ON COLUMN table_overall.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN table_overall.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_overall.metric IS 'The metric''s id.';
COMMENT ON COLUMN table_overall.mean IS 'Mean over the rates for which it is defined; NULL until every rate in the spec has a completed seed.';
COMMENT ON COLUMN table_overall.std IS 'Mean over the rates of the standard deviation over seeds.';
COMMENT ON COLUMN table_overall.cells_completed IS 'Number of rates with a completed seed.';
COMMENT ON COLUMN table_overall.cells_expected IS 'Number of rates in the spec; ten in the paper.';
COMMENT ON COLUMN table_overall.cells_undefined IS 'Number of rates at which it is undefined for every seed.';
COMMENT ON COLUMN table_overall.seeds_completed IS 'Number of completed seeds at the rate with the fewest.';
COMMENT ON COLUMN table_overall.seeds_expected IS 'Number of seeds in the spec.';

CREATE VIEW table_missing_overall AS
SELECT sweep,
       method,
       variant,
       dataset,
       metric,
       CASE WHEN bool_and(seeds_completed > 0) THEN avg(mean ORDER BY missing) END AS mean,
       CASE WHEN bool_and(seeds_completed > 0) THEN avg(std ORDER BY missing) END AS std,
       count(*) FILTER (WHERE seeds_completed > 0) AS cells_completed,
       count(*) AS cells_expected,
       count(*) FILTER (WHERE seeds_completed > 0 AND mean IS NULL) AS cells_undefined,
       min(seeds_completed) AS seeds_completed,
       max(seeds_expected) AS seeds_expected
FROM table_missing
GROUP BY sweep, method, variant, dataset, metric;
COMMENT ON VIEW table_missing_overall IS 'Tables 11 (MOSI, MOSEI) and 12 (SIMS): the mean over the sets of missing modalities of the means over seeds.';
COMMENT ON COLUMN table_missing_overall.sweep IS 'The sweep.';
COMMENT ON COLUMN table_missing_overall.method IS 'The method''s id.';
COMMENT ON COLUMN table_missing_overall.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN table_missing_overall.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN table_missing_overall.metric IS 'The metric''s id.';
COMMENT ON COLUMN table_missing_overall.mean IS 'Mean over the sets for which it is defined; NULL until every set in the spec has a completed seed.';
COMMENT ON COLUMN table_missing_overall.std IS 'Mean over the sets of the standard deviation over seeds.';
COMMENT ON COLUMN table_missing_overall.cells_completed IS 'Number of sets with a completed seed.';
COMMENT ON COLUMN table_missing_overall.cells_expected IS 'Number of sets in the spec; six in the paper.';
COMMENT ON COLUMN table_missing_overall.cells_undefined IS 'Number of sets with which it is undefined for every seed.';
COMMENT ON COLUMN table_missing_overall.seeds_completed IS 'Number of completed seeds with the set that has the fewest.';
COMMENT ON COLUMN table_missing_overall.seeds_expected IS 'Number of seeds in the spec.';

CREATE VIEW mask_spread AS
SELECT sweep,
       method,
       variant,
       dataset,
       case_damage(case_id) AS case_id,
       kind,
       metric,
       avg(mean ORDER BY mask NULLS FIRST) AS mean,
       stddev_samp(mean ORDER BY mask NULLS FIRST) AS mask_std,
       avg(std ORDER BY mask NULLS FIRST) AS seed_std,
       min(mean) AS min,
       max(mean) AS max,
       count(*) FILTER (WHERE seeds_completed > 0) AS masks_completed,
       count(*) AS masks_expected,
       min(seeds_completed) AS seeds_completed,
       max(seeds_expected) AS seeds_expected
FROM cell
GROUP BY sweep, method, variant, dataset, case_damage(case_id), kind, metric;
COMMENT ON VIEW mask_spread IS 'One metric of one method on one case over all of its masks: how much depends on where the damage is, beside how much depends on the training seed.';
COMMENT ON COLUMN mask_spread.sweep IS 'The sweep.';
COMMENT ON COLUMN mask_spread.method IS 'The method''s id.';
COMMENT ON COLUMN mask_spread.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN mask_spread.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN mask_spread.case_id IS 'The case without a mask: r=0.3.';
COMMENT ON COLUMN mask_spread.kind IS 'The kind of the case.';
COMMENT ON COLUMN mask_spread.metric IS 'The metric''s id.';
COMMENT ON COLUMN mask_spread.mean IS 'Mean over the masks of the means over seeds.';
COMMENT ON COLUMN mask_spread.mask_std IS 'Sample standard deviation (n - 1) over the masks of the means over seeds; NULL with fewer than two.';
COMMENT ON COLUMN mask_spread.seed_std IS 'Mean over the masks of the standard deviation over seeds.';
COMMENT ON COLUMN mask_spread.min IS 'Minimum over the masks of the means over seeds.';
COMMENT ON COLUMN mask_spread.max IS 'Maximum over the masks of the means over seeds.';
COMMENT ON COLUMN mask_spread.masks_completed IS 'Number of masks with a completed seed.';
COMMENT ON COLUMN mask_spread.masks_expected IS 'Number of masks in the spec, with the sweep''s own.';
COMMENT ON COLUMN mask_spread.seeds_completed IS 'Number of completed seeds of the mask with the fewest.';
COMMENT ON COLUMN mask_spread.seeds_expected IS 'Number of seeds in the spec.';

CREATE VIEW optimism AS
SELECT w.sweep,
       e.method,
       e.variant,
       e.dataset,
       e.case_id,
       e.seed,
       m.metric,
       v.value AS validation_chosen,
       t.value AS test_chosen,
       CASE WHEN m.higher_is_better THEN t.value - v.value ELSE v.value - t.value END AS optimism,
       e.id AS job,
       e.state
FROM sweep_job w
JOIN job e ON e.id = w.job
JOIN config c ON c.id = e.config
JOIN metric m ON m.dataset = e.dataset
LEFT JOIN result v ON v.job = e.id AND v.criterion = m.criterion AND v.metric = m.metric
LEFT JOIN result t ON t.job = e.id AND t.criterion = 'test:' || m.criterion AND t.metric = m.metric
WHERE e.kind = 'eval' AND c.spec #>> '{protocol,selection}' = 'both' AND NOT c.spec ? 'imported';
COMMENT ON VIEW optimism IS 'How much better a metric looks if the test split chooses the checkpoint: of models trained with selection = "both". Unfinished evaluations have rows too.';
COMMENT ON COLUMN optimism.sweep IS 'The sweep.';
COMMENT ON COLUMN optimism.method IS 'The method''s id.';
COMMENT ON COLUMN optimism.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN optimism.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN optimism.case_id IS 'The case: r=0.3, missing=la, block=0.5@1112.';
COMMENT ON COLUMN optimism.seed IS 'The training seed.';
COMMENT ON COLUMN optimism.metric IS 'The metric''s id.';
COMMENT ON COLUMN optimism.validation_chosen IS 'The value with the checkpoint that the validation split chose, as in measurement; NULL if the evaluation is not done or the metric is undefined.';
COMMENT ON COLUMN optimism.test_chosen IS 'The value with the checkpoint that the test split chose.';
COMMENT ON COLUMN optimism.optimism IS 'By how much the second is better: test_chosen - validation_chosen, with the sign turned where lower is better.';
COMMENT ON COLUMN optimism.job IS 'The evaluation job.';
COMMENT ON COLUMN optimism.state IS 'The state of that job.';

CREATE VIEW sweep_progress AS
SELECT s.id AS sweep,
       s.name,
       s.state,
       s.priority,
       s.created,
       p.*,
       s.state = 'cancelled' OR p.blocked + p.ready + p.queued + p.running = 0 AS finished
FROM sweep s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.jobs), 0)::bigint AS jobs,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'blocked'), 0)::bigint AS blocked,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'ready'), 0)::bigint AS ready,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'queued'), 0)::bigint AS queued,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'running'), 0)::bigint AS running,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'done'), 0)::bigint AS done,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'failed'), 0)::bigint AS failed,
           coalesce(sum(t.jobs) FILTER (WHERE t.state = 'cancelled'), 0)::bigint AS cancelled,
           coalesce(sum(t.jobs) FILTER (WHERE t.kind = 'train'), 0)::bigint AS train_jobs,
           coalesce(sum(t.jobs) FILTER (WHERE t.kind = 'train' AND t.state = 'done'), 0)::bigint AS train_done,
           coalesce(sum(t.jobs) FILTER (WHERE t.kind = 'eval'), 0)::bigint AS eval_jobs,
           coalesce(sum(t.jobs) FILTER (WHERE t.kind = 'eval' AND t.state = 'done'), 0)::bigint AS eval_done
    FROM tally t
    WHERE t.sweep = s.id
) p;
COMMENT ON VIEW sweep_progress IS 'The progress of each sweep.';
COMMENT ON COLUMN sweep_progress.sweep IS 'The sweep.';
COMMENT ON COLUMN sweep_progress.name IS 'The name in the spec.';
COMMENT ON COLUMN sweep_progress.state IS 'What the operator wants: running, paused or cancelled.';
COMMENT ON COLUMN sweep_progress.priority IS 'A sweep with a higher one is served first.';
COMMENT ON COLUMN sweep_progress.created IS 'Time of the first submission.';
COMMENT ON COLUMN sweep_progress.jobs IS 'Number of jobs.';
COMMENT ON COLUMN sweep_progress.blocked IS 'Evaluation jobs whose model is not trained.';
COMMENT ON COLUMN sweep_progress.ready IS 'Jobs that a worker may have next.';
COMMENT ON COLUMN sweep_progress.queued IS 'Jobs that a worker has and has not begun.';
COMMENT ON COLUMN sweep_progress.running IS 'Jobs in progress on a worker.';
COMMENT ON COLUMN sweep_progress.done IS 'Completed jobs.';
COMMENT ON COLUMN sweep_progress.failed IS 'Failed jobs.';
COMMENT ON COLUMN sweep_progress.cancelled IS 'Cancelled jobs.';
COMMENT ON COLUMN sweep_progress.train_jobs IS 'Training jobs.';
COMMENT ON COLUMN sweep_progress.train_done IS 'Completed training jobs.';
COMMENT ON COLUMN sweep_progress.eval_jobs IS 'Evaluation jobs.';
COMMENT ON COLUMN sweep_progress.eval_done IS 'Completed evaluation jobs.';
COMMENT ON COLUMN sweep_progress.finished IS 'Whether nothing of it is left to do: it has no unfinished job, or it was cancelled. What other sweeps ask for as well goes on.';

CREATE VIEW sweep_protocol AS
SELECT j.sweep,
       p.selection,
       p.selection_rate,
       p.erasure_seed,
       p.fidelity,
       p.train_missing,
       p.switched,
       array_agg(DISTINCT j.method || coalesce('/' || nullif(j.variant, ''), '')) AS methods,
       count(DISTINCT (j.method, j.variant, j.dataset)) AS models
FROM tally j
JOIN config c ON c.id = j.config
CROSS JOIN LATERAL (
    SELECT c.spec #>> '{protocol,selection}' AS selection,
           (c.spec #>> '{protocol,selection_rate}')::double precision / 1000 AS selection_rate,
           (c.spec #>> '{protocol,erasure_seed}')::bigint AS erasure_seed,
           c.spec #>> '{protocol,fidelity}' AS fidelity,
           c.spec #>> '{protocol,train_missing}' AS train_missing,
           ARRAY(SELECT jsonb_array_elements_text(c.spec #> '{protocol,switched}')) AS switched
) p
WHERE j.kind = 'train' AND NOT c.spec ? 'imported'
GROUP BY 1, 2, 3, 4, 5, 6, 7;
COMMENT ON VIEW sweep_protocol IS 'The protocols by which a sweep''s models are trained: one, unless methods or variants have settings of their own. Imported predictions have none.';
COMMENT ON COLUMN sweep_protocol.sweep IS 'The sweep.';
COMMENT ON COLUMN sweep_protocol.selection IS 'The split on which the best epoch is selected: validation, test or both.';
COMMENT ON COLUMN sweep_protocol.selection_rate IS 'The missing rate of that split.';
COMMENT ON COLUMN sweep_protocol.erasure_seed IS 'The seed of the erasure of validation and test data.';
COMMENT ON COLUMN sweep_protocol.fidelity IS 'reference: as the reference code; corrected: as the paper.';
COMMENT ON COLUMN sweep_protocol.train_missing IS 'What is missing of the training inputs: complete, fixed:RATE, drawn-once, redrawn or lnln-loader.';
COMMENT ON COLUMN sweep_protocol.switched IS 'The faults of references that are otherwise than fidelity says: corrected under reference, kept under corrected.';
COMMENT ON COLUMN sweep_protocol.methods IS 'The methods and variants trained by it: lnln, lnln/no-dmc.';
COMMENT ON COLUMN sweep_protocol.models IS 'Number of pairs of method or variant and dataset trained by it.';

CREATE VIEW job_status AS
SELECT j.id AS job,
       w.sweep,
       j.kind,
       j.method,
       j.variant,
       j.dataset,
       j.seed,
       j.case_id,
       j.state,
       j.failures,
       j.last_error,
       j.started,
       j.finished,
       a.worker,
       a.host,
       a.device,
       a.version,
       a.started AS attempt_started,
       l.epoch,
       (l.losses ->> 'loss')::double precision AS loss
FROM sweep_job w
JOIN job j ON j.id = w.job
LEFT JOIN attempt a ON a.id = j.attempt
LEFT JOIN LATERAL (
    SELECT e.epoch, e.losses
    FROM epoch_log e
    WHERE e.job = j.id AND j.kind = 'train'
    ORDER BY e.epoch DESC
    LIMIT 1
) l ON true;
COMMENT ON VIEW job_status IS 'Every job of every sweep: its state, its latest worker, and the progress of training.';
COMMENT ON COLUMN job_status.job IS 'The job.';
COMMENT ON COLUMN job_status.sweep IS 'A sweep that asks for it.';
COMMENT ON COLUMN job_status.kind IS 'train, eval or noop.';
COMMENT ON COLUMN job_status.method IS 'The method''s id.';
COMMENT ON COLUMN job_status.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN job_status.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN job_status.seed IS 'The training seed.';
COMMENT ON COLUMN job_status.case_id IS 'The case of an evaluation job.';
COMMENT ON COLUMN job_status.state IS 'Its state.';
COMMENT ON COLUMN job_status.failures IS 'Number of attempts that failed with an error.';
COMMENT ON COLUMN job_status.last_error IS 'The last of those errors.';
COMMENT ON COLUMN job_status.started IS 'Start of the first attempt; for a completed evaluation, start of the work on this case.';
COMMENT ON COLUMN job_status.finished IS 'Time at which it was done, failed or cancelled.';
COMMENT ON COLUMN job_status.worker IS 'The worker of the latest attempt.';
COMMENT ON COLUMN job_status.host IS 'That worker''s machine.';
COMMENT ON COLUMN job_status.device IS 'That worker''s device.';
COMMENT ON COLUMN job_status.version IS 'That worker''s version.';
COMMENT ON COLUMN job_status.attempt_started IS 'Start of that attempt.';
COMMENT ON COLUMN job_status.epoch IS 'For a training job: the last logged epoch.';
COMMENT ON COLUMN job_status.loss IS 'For a training job: the mean loss of that epoch.';

CREATE VIEW failures AS
SELECT w.sweep,
       j.id AS job,
       j.kind,
       j.method,
       j.variant,
       j.dataset,
       j.seed,
       j.case_id,
       j.state = 'failed' AS given_up,
       a.id AS attempt,
       a.worker,
       a.host,
       a.device,
       a.ended,
       a.failure_kind,
       a.errors
FROM attempt a
JOIN job j ON j.id = a.job
JOIN sweep_job w ON w.job = j.id
WHERE a.outcome = 'failed' OR a.failure_kind = 'crashed';
COMMENT ON VIEW failures IS 'Every failed attempt, with its chain of errors; of a job that was given up because its workers ended without a word, the last.';
COMMENT ON COLUMN failures.sweep IS 'The sweep.';
COMMENT ON COLUMN failures.job IS 'The job.';
COMMENT ON COLUMN failures.kind IS 'train, eval or noop.';
COMMENT ON COLUMN failures.method IS 'The method''s id.';
COMMENT ON COLUMN failures.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN failures.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN failures.seed IS 'The training seed.';
COMMENT ON COLUMN failures.case_id IS 'The case of an evaluation job.';
COMMENT ON COLUMN failures.given_up IS 'Whether the job has failed for good.';
COMMENT ON COLUMN failures.attempt IS 'The attempt.';
COMMENT ON COLUMN failures.worker IS 'Its worker.';
COMMENT ON COLUMN failures.host IS 'The worker''s machine.';
COMMENT ON COLUMN failures.device IS 'Its device.';
COMMENT ON COLUMN failures.ended IS 'Time at which the report of its end arrived.';
COMMENT ON COLUMN failures.failure_kind IS 'permanent, retryable, out_of_memory, non_finite, invalid or crashed.';
COMMENT ON COLUMN failures.errors IS 'The error and its causes, outermost first.';

CREATE VIEW declined AS
SELECT w.sweep,
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
JOIN sweep_job w ON w.job = j.id
WHERE a.outcome = 'handed_back' AND a.failure_kind IS NOT NULL;
COMMENT ON VIEW declined IS 'Every attempt that a worker declined for a fault of its own, which does not count as a failure of the job. At most the last fifty per job.';
COMMENT ON COLUMN declined.sweep IS 'The sweep.';
COMMENT ON COLUMN declined.job IS 'The job.';
COMMENT ON COLUMN declined.kind IS 'train, eval or noop.';
COMMENT ON COLUMN declined.method IS 'The method''s id.';
COMMENT ON COLUMN declined.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN declined.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN declined.seed IS 'The training seed.';
COMMENT ON COLUMN declined.case_id IS 'The case of an evaluation job.';
COMMENT ON COLUMN declined.attempt IS 'The attempt.';
COMMENT ON COLUMN declined.worker IS 'Its worker.';
COMMENT ON COLUMN declined.host IS 'The worker''s machine.';
COMMENT ON COLUMN declined.device IS 'Its device.';
COMMENT ON COLUMN declined.ended IS 'Time at which the report of it arrived.';
COMMENT ON COLUMN declined.fault IS 'What the worker lacked: store, data_folder, dataset, encoder, checkpoint, method or device.';
COMMENT ON COLUMN declined.errors IS 'The error and its causes, outermost first.';

CREATE VIEW epoch AS
SELECT w.sweep,
       j.method,
       j.variant,
       j.dataset,
       j.seed,
       e.epoch,
       (e.losses ->> 'loss')::double precision AS loss,
       e.losses,
       e.metrics,
       e.train_seconds,
       e.eval_seconds,
       e.best_for,
       e.job
FROM epoch_log e
JOIN job j ON j.id = e.job
JOIN sweep_job w ON w.job = j.id;
COMMENT ON VIEW epoch IS 'The learning curves: one row per epoch of each training job.';
COMMENT ON COLUMN epoch.sweep IS 'The sweep.';
COMMENT ON COLUMN epoch.method IS 'The method''s id.';
COMMENT ON COLUMN epoch.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN epoch.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN epoch.seed IS 'The training seed.';
COMMENT ON COLUMN epoch.epoch IS 'The epoch, from 1.';
COMMENT ON COLUMN epoch.loss IS 'The mean training loss.';
COMMENT ON COLUMN epoch.losses IS 'All mean losses by name.';
COMMENT ON COLUMN epoch.metrics IS 'Metrics on the selection split; where both splits select, those on the test split under test:mae and so on. validation_loss is that of schedules and early stopping.';
COMMENT ON COLUMN epoch.train_seconds IS 'Seconds of training.';
COMMENT ON COLUMN epoch.eval_seconds IS 'Seconds of evaluation.';
COMMENT ON COLUMN epoch.best_for IS 'The selection criteria for which this epoch was the best so far; test:mae is mae on the test split, where both select.';
COMMENT ON COLUMN epoch.job IS 'The training job.';

CREATE VIEW provenance AS
SELECT w.sweep,
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
       (c.spec #>> '{protocol,selection_rate}')::double precision / 1000 AS selection_rate,
       (c.spec #>> '{protocol,erasure_seed}')::bigint AS erasure_seed,
       c.spec #>> '{protocol,fidelity}' AS fidelity,
       CASE WHEN NOT c.spec ? 'imported' THEN c.spec #>> '{protocol,train_missing}' END AS train_missing,
       ARRAY(SELECT jsonb_array_elements_text(c.spec #> '{protocol,switched}')) AS switched,
       t.worker AS trained_by,
       t.device AS trained_on,
       t.version AS trained_with,
       a.worker AS evaluated_by,
       a.device AS evaluated_on,
       a.version AS evaluated_with,
       coalesce(c.spec ->> 'numerics', 'machine') AS numerics,
       t.processor AS trained_processor,
       a.processor AS evaluated_processor,
       coalesce(c.spec ? 'imported', false) AS imported,
       coalesce((c.spec ->> 'hyper')::jsonb ? 'program', false) AS external
FROM sweep_job w
JOIN job e ON e.id = w.job
JOIN evaluation v ON v.job = e.id
JOIN attempt a ON a.id = v.attempt
LEFT JOIN config c ON c.id = e.config
LEFT JOIN checkpoint k ON k.job = e.train_job AND k.criterion = v.criterion
LEFT JOIN attempt t ON t.id = k.attempt;
COMMENT ON VIEW provenance IS 'The provenance of every evaluation: checkpoint, data, encoder, protocol, and the programs and devices that trained and evaluated.';
COMMENT ON COLUMN provenance.sweep IS 'The sweep.';
COMMENT ON COLUMN provenance.job IS 'The evaluation job.';
COMMENT ON COLUMN provenance.method IS 'The method''s id.';
COMMENT ON COLUMN provenance.variant IS 'The variant''s id; empty for the method itself.';
COMMENT ON COLUMN provenance.dataset IS 'The dataset''s name: mosi, mosei, sims, or another (table benchmark).';
COMMENT ON COLUMN provenance.seed IS 'The training seed.';
COMMENT ON COLUMN provenance.case_id IS 'The case: r=0.3, missing=la, block=0.5@1112.';
COMMENT ON COLUMN provenance.criterion IS 'The selection criterion of the checkpoint; test:mae is mae on the test split, where both select.';
COMMENT ON COLUMN provenance.epoch IS 'The epoch after which the checkpoint was saved.';
COMMENT ON COLUMN provenance.checkpoint IS 'BLAKE3 of the checkpoint.';
COMMENT ON COLUMN provenance.data IS 'BLAKE3 of the dataset file.';
COMMENT ON COLUMN provenance.encoder IS 'BLAKE3 of the text encoder''s weights.';
COMMENT ON COLUMN provenance.selection IS 'The split on which checkpoints were selected: validation, test or both.';
COMMENT ON COLUMN provenance.selection_rate IS 'The missing rate of that split.';
COMMENT ON COLUMN provenance.erasure_seed IS 'The seed of its erasure, and of the case''s unless it names another.';
COMMENT ON COLUMN provenance.fidelity IS 'reference or corrected.';
COMMENT ON COLUMN provenance.train_missing IS 'What was missing of the training inputs: complete, fixed:RATE, drawn-once, redrawn or lnln-loader; NULL where the model was trained elsewhere.';
COMMENT ON COLUMN provenance.switched IS 'The faults of references that are otherwise than fidelity says.';
COMMENT ON COLUMN provenance.trained_by IS 'The worker that trained it.';
COMMENT ON COLUMN provenance.trained_on IS 'That worker''s device.';
COMMENT ON COLUMN provenance.trained_with IS 'That worker''s version.';
COMMENT ON COLUMN provenance.evaluated_by IS 'The worker that evaluated it.';
COMMENT ON COLUMN provenance.evaluated_on IS 'That worker''s device.';
COMMENT ON COLUMN provenance.evaluated_with IS 'That worker''s version.';
COMMENT ON COLUMN provenance.numerics IS 'machine: the same bits on the same kind of processor; portable: the same bits on every x86-64 processor with AVX2; bf16: as machine, with products of matrices in bfloat16.';
COMMENT ON COLUMN provenance.trained_processor IS 'The kind of processor it was trained on; see attempt.processor.';
COMMENT ON COLUMN provenance.evaluated_processor IS 'The kind of processor it was evaluated on.';
COMMENT ON COLUMN provenance.imported IS 'Whether the predictions were imported: then the model was trained elsewhere, and evaluated_with names their file.';
COMMENT ON COLUMN provenance.external IS 'Whether an external program trained it and predicted: the hyper-parameter program in config.spec has its command and the hashes of its files.';
