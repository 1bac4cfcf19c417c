//! One attempt of the scripted worker.

use super::{Act, Course, Event, Worker, outcome};
use anyhow::Result;
use halfheard_shared::wire::{Failure, JobMessage, ResultBody, ResultMessage};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Seconds that an attempt at work may take without progress.
const PATIENCE_S: u32 = 60;

/// An attempt at a job, speaking.
pub(super) struct Attempt {
    worker: Arc<Worker>,
    job: JobMessage,
    nth: u64,
    released: CancellationToken,
    said: Vec<ResultMessage>,
}

impl Attempt {
    pub(super) fn new(
        worker: Arc<Worker>,
        job: JobMessage,
        nth: u64,
        released: CancellationToken,
    ) -> Self {
        Self {
            worker,
            job,
            nth,
            released,
            said: Vec::new(),
        }
    }

    /// Does what the script says.
    pub(super) async fn perform(mut self) {
        if let Err(error) = self.try_perform().await {
            // A message that can never be sent.
            tracing::error!(%error, job = %self.job.job, "the scripted worker gives up");
        }
    }

    async fn try_perform(&mut self) -> Result<()> {
        let granted = tokio::time::Instant::now();
        let act = (self.worker.script)(&self.job, self.nth);
        let (resumed_after_epoch, resumed) = match &act {
            Act::Follow(course) => (course.resumed_after_epoch, course.resumed),
            _ => (0, 0),
        };
        let attempt = self.job.attempt;
        self.worker.update(attempt, |entry| {
            entry.begun = true;
            entry.patience_s = PATIENCE_S;
            entry.resumed = resumed;
            entry.saved = resumed;
        });
        let started = ResultBody::Started {
            resumed_after_epoch,
        };
        if matches!(act, Act::Repeat) {
            return self.repeat(started).await;
        }
        self.say(started).await?;
        let released = self.released.clone();
        match act {
            Act::Complete | Act::Repeat => self.complete(0).await,
            Act::Differ(twist) => self.complete(twist).await,
            Act::Delay(time) => self.unless_released(tokio::time::sleep(time)).await,
            Act::WaitFor(token) => {
                self.unless_released(async move { token.cancelled().await })
                    .await
            }
            Act::Follow(course) => self.follow(course, granted).await,
            Act::Stall(patience_s) => {
                self.worker.update(attempt, |entry| {
                    entry.stalled = true;
                    entry.patience_s = patience_s;
                });
                released.cancelled().await;
                self.say(ResultBody::HandedBack { after_epoch: 0 }).await
            }
            Act::CutOff(token) => {
                self.worker.update(attempt, |entry| entry.cut_off = true);
                token.cancelled().await;
                self.worker.update(attempt, |entry| entry.cut_off = false);
                self.complete(0).await
            }
            Act::Deaf(token) => {
                self.worker.update(attempt, |entry| entry.deaf = true);
                token.cancelled().await;
                self.worker.update(attempt, |entry| entry.deaf = false);
                self.complete(0).await
            }
            Act::Vanish => {
                self.worker.forget(attempt);
                Ok(())
            }
            Act::Advance(saved) => {
                self.worker.update(attempt, |entry| entry.saved = saved);
                // Several heartbeats.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.worker.forget(attempt);
                Ok(())
            }
            Act::HandBack => self.end(ResultBody::HandedBack { after_epoch: 1 }).await,
            Act::Fail(kind, chain) => self.end(ResultBody::Failed(Failure { chain, kind })).await,
            Act::Decline(fault) => {
                let after_epoch = 0;
                self.end(ResultBody::Declined { after_epoch, fault }).await
            }
            Act::SendInvalid => {
                let subject = self.worker.broker.names().result(&self.worker.info.name);
                let jetstream = self.worker.broker.jetstream();
                jetstream
                    .publish(subject, "no message".into())
                    .await?
                    .await?;
                self.complete(0).await
            }
        }
    }

    /// Completes it and sends every message three times, in reverse order.
    async fn repeat(&mut self, started: ResultBody) -> Result<()> {
        for _ in 0..3 {
            for body in outcome(&self.job, 0).into_iter().rev() {
                self.say(body).await?;
            }
            self.say(started.clone()).await?;
        }
        self.settle();
        Ok(())
    }

    /// Follows a course that began with the grant.
    async fn follow(&mut self, course: Course, granted: tokio::time::Instant) -> Result<()> {
        let released = self.released.clone();
        let mut after_epoch = course.resumed_after_epoch;
        for (after, event) in course.events {
            tokio::select! {
                () = tokio::time::sleep_until(granted + after) => {}
                () = released.cancelled() => {
                    return self.say(ResultBody::HandedBack { after_epoch }).await;
                }
            }
            match event {
                Event::Say(body) => {
                    if let ResultBody::Epoch(log) = &body {
                        after_epoch = log.epoch;
                    }
                    self.say(body).await?;
                }
                Event::Saved(steps) => {
                    self.worker
                        .update(self.job.attempt, |entry| entry.saved = steps);
                }
            }
        }
        self.settle();
        Ok(())
    }

    /// Completes it after `work`, or hands it back when it is released before.
    async fn unless_released(&mut self, work: impl Future<Output = ()>) -> Result<()> {
        let released = self.released.clone();
        tokio::select! {
            () = work => self.complete(0).await,
            () = released.cancelled() => self.say(ResultBody::HandedBack { after_epoch: 0 }).await,
        }
    }

    async fn complete(&mut self, twist: u8) -> Result<()> {
        for body in outcome(&self.job, twist) {
            self.say(body).await?;
        }
        self.settle();
        Ok(())
    }

    async fn end(&mut self, body: ResultBody) -> Result<()> {
        self.say(body).await?;
        self.settle();
        Ok(())
    }

    /// Keeps what was said until the attempt is released.
    fn settle(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.worker.update(self.job.attempt, |entry| {
            entry.patience_s = 0;
            entry.ended = Some((said, Instant::now()));
        });
    }

    /// Reports `body`, however long the broker is away.
    async fn say(&mut self, body: ResultBody) -> Result<()> {
        let report = ResultMessage {
            job: self.job.job,
            attempt: self.job.attempt,
            worker: self.worker.info.clone(),
            body,
        };
        self.worker.deliver(&report).await?;
        self.said.push(report);
        Ok(())
    }
}
