//! The jobs that can be granted to workers that ask, locked.

use super::{
    Request,
    deal::{Offer, Offers, Taker, deal},
    number,
};
use crate::{JobKind, StoreError};
use halfheard_shared::{
    external,
    ids::{JobId, SweepId},
    methods,
};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Most jobs of one kind that are granted to workers of one kind in one transaction.
const MOST: i64 = 4096;

/// Finds jobs for `takers`, locks them, and deals them out; each with the index of its request.
/// Workers that can do the same and are served in the same order are served together.
pub(super) async fn deal_out(
    tx: &mut PgConnection,
    requests: &[Request<'_>],
    takers: Vec<Taker>,
) -> Result<Vec<(usize, Offer)>, StoreError> {
    let mut limits = limits(tx, requests).await?;
    let mut dealt: Vec<(usize, Offer)> = Vec::new();
    for group in alike(requests, takers) {
        let offers = offers(tx, requests, &group, &limits, &dealt).await?;
        let spread = group
            .iter()
            .map(|taker| requests[taker.index].spread)
            .max()
            .unwrap_or(0);
        dealt.extend(deal(&group, offers, spread, &mut limits));
    }
    Ok(dealt)
}

/// The takers with room, grouped by what they can do and whom they serve.
fn alike(requests: &[Request<'_>], takers: Vec<Taker>) -> Vec<Vec<Taker>> {
    let mut groups: Vec<Vec<Taker>> = Vec::new();
    for taker in takers {
        let room = taker.room;
        if room.trainings == 0 && room.evaluations == 0 && room.noops == 0 {
            continue;
        }
        let one = &requests[taker.index];
        let group = groups.iter_mut().find(|group| {
            let other = &requests[group[0].index];
            one.sweeps == other.sweeps
                && one.memory == other.memory
                && one.methods == other.methods
                && one.labels == other.labels
        });
        match group {
            Some(group) => group.push(taker),
            None => groups.push(vec![taker]),
        }
    }
    groups
}

/// How many more jobs of a sweep may be at work, for the sweeps with a limit.
async fn limits(
    tx: &mut PgConnection,
    requests: &[Request<'_>],
) -> Result<HashMap<SweepId, i64>, StoreError> {
    let mut sweeps: Vec<Uuid> = requests
        .iter()
        .flat_map(|request| request.sweeps)
        .map(|sweep| sweep.0)
        .collect();
    sweeps.sort_unstable();
    sweeps.dedup();
    Ok(sqlx::query!(
        r#"SELECT s.id, s.max_running - (
                      SELECT count(*) FROM job
                      WHERE sweep = s.id AND state IN ('queued', 'running')) AS "left!"
           FROM sweep s WHERE s.id = ANY($1) AND s.max_running IS NOT NULL"#,
        &sweeps
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| (SweepId(row.id), row.left.max(0)))
    .collect())
}

/// Locks ready jobs for one group of workers.
async fn offers(
    tx: &mut PgConnection,
    requests: &[Request<'_>],
    group: &[Taker],
    limits: &HashMap<SweepId, i64>,
    dealt: &[(usize, Offer)],
) -> Result<Offers, StoreError> {
    let one = &requests[group[0].index];
    let wanted = |room: &dyn Fn(&Taker) -> u32| -> i64 {
        let all: i64 = group.iter().map(|taker| i64::from(room(taker))).sum();
        // Others wait, too: how many there are for them decides about the share of these.
        let most = group.iter().map(|taker| i64::from(room(taker))).max();
        let spread = group.iter().map(|taker| requests[taker.index].spread).max();
        let spread = i64::try_from(spread.unwrap_or(0)).unwrap_or(MOST);
        all.saturating_add(spread.saturating_mul(most.unwrap_or(0)))
            .min(MOST)
    };
    let query = Query {
        sweeps: one.sweeps.iter().map(|sweep| sweep.0).collect(),
        most: one
            .sweeps
            .iter()
            .map(|sweep| limits.get(sweep).copied().unwrap_or(i64::MAX))
            .collect(),
        methods: one.methods,
        external: one.methods.iter().any(|id| id == external::METHOD),
        registry: methods::all().iter().map(|info| info.id.clone()).collect(),
        labels: one.labels,
        memory: number(one.memory),
        taken: dealt.iter().map(|(_, offer)| offer.job.0).collect(),
    };
    let trainings = wanted(&|taker| taker.room.trainings.min(1));
    let evaluations = wanted(&|taker| taker.room.evaluations);
    let noops = wanted(&|taker| taker.room.noops);
    Ok(Offers {
        trainings: query.all_trainings(tx, trainings).await?.into(),
        evaluations: query
            .all_others(tx, JobKind::Eval, evaluations)
            .await?
            .into(),
        noops: query.all_others(tx, JobKind::Noop, noops).await?.into(),
    })
}

/// What the jobs must be like.
struct Query<'a> {
    /// Their sweeps, the first ones first.
    sweeps: Vec<Uuid>,
    /// Most jobs of each sweep.
    most: Vec<i64>,
    methods: &'a [String],
    /// Whether they may be of external programs, whose ids no worker announces.
    external: bool,
    /// The methods that are no external programs.
    registry: Vec<String>,
    labels: &'a [String],
    memory: i64,
    /// Jobs that are dealt out already.
    taken: Vec<Uuid>,
}

macro_rules! offers {
    ($rows:expr, $delayed:expr) => {
        $rows
            .into_iter()
            .map(|row| Offer {
                delayed: $delayed,
                place: row.place,
                job: JobId(row.id),
                sweep: SweepId(row.sweep),
                kind: row.kind,
                seed: row.seed,
                case: row.case_id,
                train: row.train_job.map(JobId),
                config: row.config,
                losses: row.losses,
            })
            .collect()
    };
}

impl Query<'_> {
    /// Trainings, those that were declined or failed in the last minutes after all others: jobs that
    /// nobody can do must not keep workers from those that somebody can.
    async fn all_trainings(
        &self,
        tx: &mut PgConnection,
        limit: i64,
    ) -> Result<Vec<Offer>, StoreError> {
        let mut found = self.trainings(tx, limit, false).await?;
        let left = limit - i64::try_from(found.len()).unwrap_or(limit);
        found.extend(self.trainings(tx, left, true).await?);
        Ok(found)
    }

    /// Evaluations or no-ops, in the same order.
    async fn all_others(
        &self,
        tx: &mut PgConnection,
        kind: JobKind,
        limit: i64,
    ) -> Result<Vec<Offer>, StoreError> {
        let mut found = self.others(tx, kind, limit, false).await?;
        let left = limit - i64::try_from(found.len()).unwrap_or(limit);
        found.extend(self.others(tx, kind, left, true).await?);
        Ok(found)
    }

    /// The longest trainings of each sweep.
    async fn trainings(
        &self,
        tx: &mut PgConnection,
        limit: i64,
        delayed: bool,
    ) -> Result<Vec<Offer>, StoreError> {
        if limit <= 0 || self.sweeps.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"SELECT s.place AS "place!", s.id AS "sweep!", j.id, j.kind AS "kind: JobKind", j.seed,
                      j.case_id, j.train_job, j.config, j.losses
               FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS s (id, most, place)
               JOIN sweep w ON w.id = s.id AND w.state = 'running'
               CROSS JOIN LATERAL (
                   SELECT * FROM job
                   WHERE sweep = s.id AND state = 'ready' AND kind = 'train'
                     AND not_before <= now()
                     AND (method = ANY($3) OR ($9 AND method <> ALL($10))) AND min_memory <= $4
                     AND (label IS NULL OR label = ANY($5)) AND id <> ALL($6)
                     AND (not_before > now() - interval '10 minutes') = $8
                   ORDER BY length DESC, position LIMIT least(s.most, $7)
                   FOR NO KEY UPDATE SKIP LOCKED
               ) j
               ORDER BY s.place, j.length DESC, j.position LIMIT $7"#,
            &self.sweeps,
            &self.most,
            self.methods,
            self.memory,
            self.labels,
            &self.taken,
            limit,
            delayed,
            self.external,
            &self.registry
        )
        .fetch_all(tx)
        .await?;
        Ok(offers!(rows, delayed))
    }

    /// The first evaluations or no-ops of each sweep.
    async fn others(
        &self,
        tx: &mut PgConnection,
        kind: JobKind,
        limit: i64,
        delayed: bool,
    ) -> Result<Vec<Offer>, StoreError> {
        if limit <= 0 || self.sweeps.is_empty() {
            return Ok(Vec::new());
        }
        // The first condition on the kind is that of the index.
        let rows = sqlx::query!(
            r#"SELECT s.place AS "place!", s.id AS "sweep!", j.id, j.kind AS "kind: JobKind", j.seed,
                      j.case_id, j.train_job, j.config, j.losses
               FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS s (id, most, place)
               JOIN sweep w ON w.id = s.id AND w.state = 'running'
               CROSS JOIN LATERAL (
                   SELECT * FROM job
                   WHERE sweep = s.id AND state = 'ready' AND kind <> 'train' AND kind = $8
                     AND not_before <= now()
                     AND (kind = 'noop' OR method = ANY($3) OR ($10 AND method <> ALL($11)))
                     AND min_memory <= $4 AND (label IS NULL OR label = ANY($5))
                     AND id <> ALL($6)
                     AND (not_before > now() - interval '10 minutes') = $9
                   ORDER BY position LIMIT least(s.most, $7)
                   FOR NO KEY UPDATE SKIP LOCKED
               ) j
               ORDER BY s.place, j.position LIMIT $7"#,
            &self.sweeps,
            &self.most,
            self.methods,
            self.memory,
            self.labels,
            &self.taken,
            limit,
            kind as JobKind,
            delayed,
            self.external,
            &self.registry
        )
        .fetch_all(tx)
        .await?;
        Ok(offers!(rows, delayed))
    }
}
