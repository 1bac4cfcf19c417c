//! Reads what is shown, once a second and whenever something else is to be shown. An outage is told and
//! waited out.

use super::{
    map::Map,
    state::{Outlook, Picture, SweepLine, Tab, TrainingView, Wish},
    update::Event,
};
use crate::{commands::status::BrokerState, config::Settings};
use halfheard_progress::{Forecast, Snapshot, failures};
use halfheard_shared::{
    broker::Broker,
    error::chain,
    ids::{JobId, SweepId},
    wire::Heartbeat,
};
use halfheard_store::{
    JobKind, JobState, Store, StoreError, SweepState, sweeps::Progress, trainings::Sibling,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc::Sender, watch},
    time::timeout,
};

/// How often everything is read.
const EVERY: Duration = Duration::from_secs(1);
/// How long to wait for an answer before it counts as an outage.
const PATIENCE: Duration = Duration::from_secs(5);
/// What was read stays for as many times as long as reading it took, for the sake of the server.
const SPARE: u32 = 10;
/// But not longer than this.
const LONGEST: Duration = Duration::from_secs(15);
/// How often the jobs of a sweep are counted that is finished.
const FINISHED_EVERY: Duration = Duration::from_secs(15);

/// Reads the database until nobody listens.
pub(super) async fn database(
    store: Store,
    mut wish: watch::Receiver<Wish>,
    workers: watch::Receiver<Vec<Heartbeat>>,
    events: Sender<Event>,
) {
    let mut reader = Reader {
        workers,
        finished: HashMap::new(),
        forecast: None,
    };
    loop {
        let wanted = *wish.borrow_and_update();
        let began = Instant::now();
        // A server that is away needs no rest: how long it took not to answer says nothing.
        let (event, pause) = match timeout(PATIENCE, reader.read(&store, wanted)).await {
            Ok(Ok(picture)) => (Event::Loaded(Box::new(picture)), rest(began.elapsed())),
            Ok(Err(error)) => (Event::NoDatabase(chain(&error)), EVERY),
            Err(_) => (Event::NoDatabase("it does not answer".to_owned()), EVERY),
        };
        if events.send(event).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = wish.changed() => if changed.is_err() { return },
        }
    }
}

/// How long to wait before everything is read again that took this long to read.
fn rest(took: Duration) -> Duration {
    (took * SPARE).clamp(EVERY, LONGEST)
}

/// Asks the broker who lives until nobody listens.
pub(super) async fn broker(
    settings: Settings,
    workers: watch::Sender<Vec<Heartbeat>>,
    events: Sender<Event>,
) {
    let mut state = BrokerState::connect(&settings).await;
    loop {
        let event = match state.get() {
            Some(broker) => heartbeats(broker).await,
            None => Event::NoBroker(state.error().unwrap_or_default()),
        };
        if let Event::Workers(beats) = &event {
            workers.send_replace(beats.clone());
        }
        if events.send(event).await.is_err() {
            return;
        }
        tokio::time::sleep(EVERY).await;
        if state.get().is_none() {
            state = BrokerState::connect(&settings).await;
        }
    }
}

async fn heartbeats(broker: &Broker) -> Event {
    match timeout(PATIENCE, broker.live_workers()).await {
        Ok(Ok(workers)) => Event::Workers(workers),
        Ok(Err(error)) => Event::NoBroker(chain(&error)),
        Err(_) => Event::NoBroker("it does not answer".to_owned()),
    }
}

/// Remembers what need not be read every time.
struct Reader {
    /// Who lives, on which the forecast depends.
    workers: watch::Receiver<Vec<Heartbeat>>,
    finished: HashMap<SweepId, (Progress, Instant)>,
    forecast: Option<(SweepId, Forecast)>,
}

impl Reader {
    async fn read(&mut self, store: &Store, wish: Wish) -> Result<Picture, StoreError> {
        let mut picture = Picture {
            sweeps: self.sweeps(store).await?,
            drained: store.drained().await?,
            ..Picture::default()
        };
        let newest = picture.sweeps.first().map(|line| line.row.id);
        let exists = |sweep: &SweepId| picture.sweeps.iter().any(|line| line.row.id == *sweep);
        let Some(sweep) = wish.sweep.filter(exists).or(newest) else {
            return Ok(picture);
        };
        picture.outlook = Some(self.outlook(store, sweep).await?);
        match wish.tab {
            Tab::Sweeps => {}
            Tab::Map => picture.map = Some((sweep, map(store, sweep).await?)),
            Tab::Workers => picture.since = store.working_since().await?,
            Tab::Training => {
                let job = match wish.job {
                    Some(job) => Some(job),
                    None => begun(store, sweep).await?,
                };
                if let Some(job) = job {
                    picture.training = Some(training(store, job).await?);
                }
            }
            Tab::Failures => picture.failures = Some((sweep, failures::load(store, sweep).await?)),
        }
        Ok(picture)
    }

    async fn sweeps(&mut self, store: &Store) -> Result<Vec<SweepLine>, StoreError> {
        let mut lines = Vec::new();
        for row in store.sweeps().await? {
            let known = self.finished.get(&row.id);
            let jobs = match known.filter(|(_, at)| at.elapsed() < FINISHED_EVERY) {
                Some((jobs, _)) => *jobs,
                None => store.progress(row.id).await?,
            };
            match jobs.open() == 0 && row.state == SweepState::Running && jobs.failed == 0 {
                true if known.is_none_or(|(_, at)| at.elapsed() >= FINISHED_EVERY) => {
                    self.finished.insert(row.id, (jobs, Instant::now()));
                }
                true => {}
                false => drop(self.finished.remove(&row.id)),
            }
            lines.push(SweepLine { row, jobs });
        }
        Ok(lines)
    }

    async fn outlook(&mut self, store: &Store, sweep: SweepId) -> Result<Outlook, StoreError> {
        let mut snapshot = Snapshot::load(store, None, sweep).await?;
        snapshot.workers = self.workers.borrow().clone();
        if self.forecast.as_ref().is_none_or(|(of, _)| *of != sweep) {
            self.forecast = Some((sweep, Forecast::new(sweep)));
        }
        let left = match &mut self.forecast {
            Some((_, forecast)) => forecast.left(store, &snapshot).await,
            None => None,
        };
        Ok(Outlook {
            sweep,
            trained: (snapshot.train_done, snapshot.train_jobs),
            evaluated: (snapshot.eval_done, snapshot.eval_jobs),
            left,
        })
    }
}

async fn map(store: &Store, sweep: SweepId) -> Result<Map, StoreError> {
    Ok(Map::new(store.sweep_map(sweep).await?))
}

/// The training job of a sweep to look at first: one in progress, or the first.
async fn begun(store: &Store, sweep: SweepId) -> Result<Option<JobId>, StoreError> {
    let cells = store.sweep_map(sweep).await?;
    let running = cells.iter().find(|cell| cell.training == JobState::Running);
    Ok(running.or(cells.first()).map(|cell| cell.job))
}

/// A training job with its curves; of an evaluation, that of its model.
async fn training(store: &Store, job: JobId) -> Result<TrainingView, StoreError> {
    let mut training = store.training(job).await?;
    if let (JobKind::Eval, Some(model)) = (training.kind, training.train_job) {
        training = store.training(model).await?;
    }
    let job = training.job;
    let mut seeds = store.training_siblings(job).await?;
    seeds.push(Sibling {
        job,
        seed: training.seed,
        state: training.state,
    });
    seeds.sort_by_key(|seed| (seed.seed, seed.job));
    let jobs: Vec<JobId> = seeds.iter().map(|seed| seed.job).collect();
    Ok(TrainingView {
        attempts: store.attempts(job).await?,
        epochs: store.training_epochs(&jobs).await?,
        seeds,
        training,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_spared_in_proportion_but_no_longer_than_a_reader_waits() {
        assert_eq!(rest(Duration::from_millis(3)), EVERY);
        assert_eq!(rest(Duration::from_millis(400)), Duration::from_secs(4));
        assert_eq!(rest(PATIENCE), LONGEST);
    }
}
