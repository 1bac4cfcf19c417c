//! How many allocations to submit and which to cancel: a pure function.

use halfheard_store::allocation::OpenWork;
use std::time::Duration;

/// The delay after the first failure; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(30);
const LONGEST_DELAY: Duration = Duration::from_secs(1800);

/// What the operator allows, and what an allocation is.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Most allocations at any time.
    pub(crate) max: u32,
    /// Fewest allocations while there is work.
    pub(crate) min: u32,
    /// Most allocations that wait in Slurm's queue.
    pub(crate) backlog: u32,
    /// Jobs that one allocation has at work at once.
    pub(crate) slots: u32,
    /// An allocation's time limit.
    pub(crate) time: Duration,
    /// At most this much of an allocation's time is counted on.
    pub(crate) horizon: Duration,
    /// How long before its end a worker begins to hand back.
    pub(crate) lead: Duration,
}

/// What an allocation is to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In Slurm's queue, or queued again after preemption.
    Pending,
    /// At work, for so long.
    Running(Duration),
    /// On its way out.
    Leaving,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// How many allocations to submit.
    pub(crate) submit: u32,
    /// Which of the allocations to cancel, all of them pending.
    pub(crate) cancel: Vec<usize>,
}

impl Limits {
    /// Seconds of work that a new allocation takes off.
    fn seconds_of_new(&self) -> f64 {
        let usable = self.time.saturating_sub(self.lead).min(self.horizon);
        usable.as_secs_f64().max(1.0) * f64::from(self.slots)
    }

    /// Seconds of work that an allocation still takes off; `None` if it is of no use any more.
    fn seconds_of(&self, phase: Phase) -> Option<f64> {
        match phase {
            Phase::Pending => Some(self.seconds_of_new()),
            Phase::Running(left) if left > self.lead => {
                let usable = (left - self.lead).min(self.horizon);
                Some(usable.as_secs_f64() * f64::from(self.slots))
            }
            Phase::Running(_) | Phase::Leaving => None,
        }
    }

    /// The most allocations that find a job at once.
    fn occupied(&self, work: &OpenWork) -> u32 {
        let jobs = u64::try_from(work.parallel).unwrap_or(0);
        let filled = jobs.div_ceil(u64::from(self.slots.max(1)));
        u32::try_from(filled).unwrap_or(u32::MAX)
    }
}

/// Decides for the allocations `held`, oldest first. Nothing is submitted while submission backs off.
///
/// Enough are submitted for the work that is left against the time left in those that run or wait: a
/// training job of unknown cost counts as long as an allocation. No more than find a job at once are:
/// one long training job takes one allocation after the other.
pub(crate) fn decide(
    limits: &Limits,
    work: &OpenWork,
    held: &[Phase],
    backs_off: bool,
) -> Decision {
    let pending: Vec<usize> = (0..held.len())
        .filter(|&i| held[i] == Phase::Pending)
        .collect();
    let supplies: Vec<f64> = held.iter().filter_map(|p| limits.seconds_of(*p)).collect();
    let running = count(supplies.len() - pending.len());
    let occupied = limits.occupied(work);
    let least = if occupied == 0 { 0 } else { limits.min };
    let most = if occupied == 0 {
        0
    } else {
        occupied.max(limits.min).min(limits.max)
    };

    // What would find no job, and what is beyond a maximum that was lowered: the newest first.
    let fit = most.saturating_sub(running);
    let others = count(held.len() - pending.len());
    let keep = fit.min(limits.max.saturating_sub(others));
    let keep = keep.min(count(pending.len()));
    let cancel = pending[keep as usize..].to_vec();

    let supply: f64 = supplies.iter().sum();
    let each = limits.seconds_of_new();
    let lacking = work.seconds + work.unknown as f64 * each / f64::from(limits.slots) - supply;
    // Rounding must not ask for one more; a cast saturates.
    let more = (lacking / each - 1e-9).ceil().max(0.0) as u32;
    let usable = running + keep;
    // Work of unknown length is work as well.
    let target = usable.saturating_add(more).max(1).max(least).min(most);

    let waiting = limits
        .backlog
        .max(limits.min.saturating_sub(running))
        .saturating_sub(keep);
    let room = limits.max.saturating_sub(others + keep);
    let submit = match backs_off {
        true => 0,
        false => target.saturating_sub(usable).min(waiting).min(room),
    };
    Decision { submit, cancel }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How long nothing is submitted after so many failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_DELAY
            .saturating_mul(2_u32.saturating_pow(n - 1))
            .min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests;
