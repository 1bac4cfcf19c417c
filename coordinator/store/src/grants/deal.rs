//! Dealing jobs out among workers that ask, in memory.

use super::{GrantedJob, Room};
use crate::JobKind;
use halfheard_shared::ids::{AttemptId, JobId, SweepId};
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// A job that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Whether it was declined or failed in the last minutes: it comes after all others, whatever their
    /// kind.
    pub(super) delayed: bool,
    /// The place of its sweep in the order of serving, from 1.
    pub(super) place: i64,
    pub(super) job: JobId,
    pub(super) sweep: SweepId,
    pub(super) kind: JobKind,
    pub(super) seed: i64,
    pub(super) case: Option<String>,
    pub(super) train: Option<JobId>,
    pub(super) config: Option<Uuid>,
    pub(super) losses: i32,
}

impl Offer {
    /// The grant of this job as `attempt`.
    pub(super) fn granted(self, attempt: AttemptId) -> GrantedJob {
        GrantedJob {
            job: self.job,
            sweep: self.sweep,
            attempt,
            kind: self.kind,
            seed: self.seed,
            case: self.case,
            train: self.train,
            config: self.config,
            losses: self.losses,
            repeated: false,
        }
    }
}

/// Jobs that can be granted, in the order of serving.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    pub(super) trainings: VecDeque<Offer>,
    pub(super) evaluations: VecDeque<Offer>,
    pub(super) noops: VecDeque<Offer>,
}

/// The evaluations that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// None.
    Nothing,
    /// Some.
    Others,
    /// One at which workers were lost: it is alone, so that no other is lost beside it again.
    Suspect,
}

impl Holds {
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a GrantedJob>) -> Self {
        jobs.filter(|job| job.kind == JobKind::Eval).fold(
            Holds::Nothing,
            |holds, job| match holds {
                Holds::Suspect => holds,
                _ if job.losses > 0 => Holds::Suspect,
                _ => Holds::Others,
            },
        )
    }
}

/// A worker that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taker {
    /// The index of its request.
    pub(super) index: usize,
    pub(super) room: Room,
    pub(super) holds: Holds,
}

/// Deals `offers` out: the index of the request for each job that is granted.
///
/// A worker gets evaluations or one training, whichever is served first, because a training would wait
/// behind evaluations. Where there are few evaluations, they are shared with the other takers and
/// `spread` more workers. An evaluation at which workers were lost is granted to a worker without
/// others, which gets none beside it; a worker with others gets no more, so that it soon has none.
/// `limits` says how many more jobs a sweep may have at work; what is granted is subtracted.
pub(super) fn deal(
    takers: &[Taker],
    offers: Offers,
    spread: usize,
    limits: &mut HashMap<SweepId, i64>,
) -> Vec<(usize, Offer)> {
    let Offers {
        mut trainings,
        evaluations,
        mut noops,
    } = offers;
    let (mut suspects, mut evaluations): (VecDeque<Offer>, VecDeque<Offer>) =
        evaluations.into_iter().partition(|offer| offer.losses > 0);
    let share = |offers: usize, room: &dyn Fn(&Room) -> u32| {
        let among = takers.iter().filter(|taker| room(&taker.room) > 0).count() + spread;
        offers.div_ceil(among.max(1)).max(1)
    };
    let evaluation_share = share(evaluations.len(), &|room| room.evaluations);
    let noop_share = share(noops.len(), &|room| room.noops);
    let mut dealt = Vec::new();
    for taker in takers {
        let mut take = |offers: &mut VecDeque<Offer>, most: u32, share: usize| -> usize {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(share);
            let mut taken = 0;
            while taken < most
                && let Some(offer) = offers.pop_front()
            {
                match limits.get_mut(&offer.sweep) {
                    Some(0) => continue,
                    Some(left) => *left -= 1,
                    None => {}
                }
                dealt.push((taker.index, offer));
                taken += 1;
            }
            taken
        };
        take(&mut noops, taker.room.noops, noop_share);
        let place = |offers: &VecDeque<Offer>| {
            let first = offers.front();
            first.map_or((true, i64::MAX), |offer| (offer.delayed, offer.place))
        };
        let evaluates = taker.room.evaluations > 0 && taker.holds != Holds::Suspect;
        let first = place(&evaluations).min(place(&suspects));
        let trains_first = taker.room.trainings > 0 && place(&trainings) < first;
        if evaluates && !trains_first {
            let taken = match (suspects.is_empty(), taker.holds) {
                (true, _) => take(&mut evaluations, taker.room.evaluations, evaluation_share),
                (false, Holds::Nothing) => take(&mut suspects, 1, 1),
                (false, _) => {
                    // It waits for this worker to have no others; the next taker may be given another.
                    suspects.pop_front();
                    continue;
                }
            };
            if taken > 0 {
                continue;
            }
        }
        take(&mut trainings, taker.room.trainings.min(1), 1);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::RetryPolicy;
    use proptest::prelude::*;

    fn offer(kind: JobKind, number: u32, place: i64, losses: i32) -> Offer {
        Offer {
            delayed: false,
            place,
            job: JobId::derive(&[kind.as_str().as_bytes(), &number.to_le_bytes()]),
            sweep: SweepId::derive(&[&place.to_le_bytes()]),
            kind,
            seed: 0,
            case: None,
            train: None,
            config: None,
            losses,
        }
    }

    fn taker(index: usize, trainings: u32, evaluations: u32, holds: Holds) -> Taker {
        Taker {
            index,
            room: Room {
                trainings,
                evaluations,
                noops: 0,
            },
            holds,
        }
    }

    fn counts(dealt: &[(usize, Offer)], takers: usize) -> Vec<usize> {
        (0..takers)
            .map(|index| dealt.iter().filter(|(i, _)| *i == index).count())
            .collect()
    }

    fn evaluations(count: u32) -> Offers {
        Offers {
            evaluations: (0..count).map(|i| offer(JobKind::Eval, i, 1, 0)).collect(),
            ..Offers::default()
        }
    }

    #[test]
    fn declined_training_waits_for_an_evaluation_of_lower_priority() {
        let mut offers = evaluations(1);
        offers.evaluations[0].place = 2;
        offers.trainings = [offer(JobKind::Train, 0, 1, 0)].into();
        let kinds = |offers: &Offers| -> Vec<JobKind> {
            let taker = taker(0, 1, 16, Holds::Nothing);
            let dealt = deal(&[taker], offers.clone(), 0, &mut HashMap::new());
            dealt.into_iter().map(|(_, offer)| offer.kind).collect()
        };
        assert_eq!(kinds(&offers), [JobKind::Train]);
        offers.trainings[0].delayed = true;
        assert_eq!(kinds(&offers), [JobKind::Eval]);
        offers.evaluations[0].delayed = true;
        assert_eq!(kinds(&offers), [JobKind::Train], "equal again");
    }

    #[test]
    fn few_evaluations_are_shared_and_many_fill_room() {
        let takers = [0, 1, 2].map(|index| taker(index, 0, 16, Holds::Nothing));
        let few = deal(&takers, evaluations(7), 0, &mut HashMap::new());
        assert_eq!(counts(&few, 3), [3, 3, 1]);
        let spread = deal(&takers, evaluations(7), 4, &mut HashMap::new());
        assert_eq!(counts(&spread, 3), [1, 1, 1]);
        let many = deal(&takers, evaluations(100), 0, &mut HashMap::new());
        assert_eq!(counts(&many, 3), [16, 16, 16]);
    }

    #[test]
    fn worker_gets_evaluations_or_training_of_sweep_served_first() {
        let offers = |training: i64, evaluation: i64| Offers {
            trainings: [offer(JobKind::Train, 0, training, 0)].into(),
            evaluations: [offer(JobKind::Eval, 0, evaluation, 0)].into(),
            noops: VecDeque::new(),
        };
        let takers = [taker(0, 1, 16, Holds::Nothing)];
        for (training, evaluation, kind) in [
            (1, 2, JobKind::Train),
            (2, 1, JobKind::Eval),
            (1, 1, JobKind::Eval),
        ] {
            let dealt = deal(
                &takers,
                offers(training, evaluation),
                0,
                &mut HashMap::new(),
            );
            assert_eq!(dealt.len(), 1);
            assert_eq!(dealt[0].1.kind, kind);
        }
    }

    #[test]
    fn suspect_evaluation_is_granted_alone() {
        let offers = || {
            let mut offers = evaluations(4);
            offers.evaluations.push_back(offer(JobKind::Eval, 9, 1, 1));
            offers
        };
        let free = [taker(0, 0, 16, Holds::Nothing)];
        let dealt = deal(&free, offers(), 0, &mut HashMap::new());
        assert_eq!(dealt.len(), 1);
        assert_eq!(dealt[0].1.losses, 1);
        // A worker with others gets none, and one that has a suspect gets none.
        for holds in [Holds::Others, Holds::Suspect] {
            let busy = [taker(0, 0, 16, holds)];
            assert!(deal(&busy, offers(), 0, &mut HashMap::new()).is_empty());
        }
        // Only as many workers wait as there are suspects.
        let busy = [0, 1].map(|index| taker(index, 0, 16, Holds::Others));
        let dealt = deal(&busy, offers(), 0, &mut HashMap::new());
        assert_eq!(counts(&dealt, 2)[0], 0);
        assert!(counts(&dealt, 2)[1] > 0);
    }

    /// One evaluation kills every worker that evaluates it, with all that it evaluates beside.
    #[test]
    fn innocent_evaluation_never_fails_beside_poison() {
        let limit = RetryPolicy::default().losses;
        let mut waiting: Vec<Offer> = (0..40).map(|i| offer(JobKind::Eval, i, 1, 0)).collect();
        let poison = waiting[17].job;
        let (mut done, mut failed) = (0, Vec::new());
        for round in 0.. {
            assert!(round < 100, "it does not end");
            if waiting.is_empty() {
                break;
            }
            let takers = [0, 1, 2].map(|index| taker(index, 1, 8, Holds::Nothing));
            let offers = Offers {
                evaluations: waiting.clone().into(),
                ..Offers::default()
            };
            let dealt = deal(&takers, offers, 0, &mut HashMap::new());
            for index in 0..takers.len() {
                let mine: Vec<&Offer> = dealt
                    .iter()
                    .filter(|(i, _)| *i == index)
                    .map(|(_, offer)| offer)
                    .collect();
                let dies = mine.iter().any(|offer| offer.job == poison);
                for offer in mine {
                    let at = waiting.iter().position(|w| w.job == offer.job).unwrap();
                    if !dies {
                        done += 1;
                        waiting.remove(at);
                        continue;
                    }
                    waiting[at].losses += 1;
                    assert!(offer.job == poison || waiting[at].losses == 1);
                    if waiting[at].losses >= limit {
                        failed.push(waiting.remove(at).job);
                    }
                }
            }
        }
        assert_eq!((done, failed), (39, vec![poison]));
    }

    #[test]
    fn limit_of_sweep_holds_across_takers() {
        let takers = [0, 1].map(|index| taker(index, 0, 16, Holds::Nothing));
        let sweep = offer(JobKind::Eval, 0, 1, 0).sweep;
        let mut limits = HashMap::from([(sweep, 3)]);
        assert_eq!(deal(&takers, evaluations(10), 0, &mut limits).len(), 3);
        assert_eq!(limits[&sweep], 0);
    }

    proptest! {
        /// Nobody gets more than it takes, no job goes to two, and a suspect evaluation is never
        /// beside another.
        #[test]
        fn deals_respect_room_and_solitude(
            takers in proptest::collection::vec((0_u32..3, 0_u32..6, 0_u32..4, 0_usize..3), 1..6),
            trainings in 0_u32..6,
            evaluations in proptest::collection::vec((0_i32..2, 1_i64..3), 0..20),
            noops in 0_u32..20,
            spread in 0_usize..4,
        ) {
            let takers: Vec<Taker> = takers
                .into_iter()
                .enumerate()
                .map(|(index, (trainings, evaluations, noops, holds))| Taker {
                    index,
                    room: Room { trainings, evaluations, noops },
                    holds: [Holds::Nothing, Holds::Others, Holds::Suspect][holds],
                })
                .collect();
            let offers = Offers {
                trainings: (0..trainings).map(|i| offer(JobKind::Train, i, 1, 0)).collect(),
                evaluations: (0..)
                    .zip(&evaluations)
                    .map(|(i, (losses, place))| offer(JobKind::Eval, i, *place, *losses))
                    .collect(),
                noops: (0..noops).map(|i| offer(JobKind::Noop, i, 1, 0)).collect(),
            };
            let dealt = deal(&takers, offers, spread, &mut HashMap::new());
            let mut jobs: Vec<JobId> = dealt.iter().map(|(_, offer)| offer.job).collect();
            jobs.sort_unstable();
            jobs.dedup();
            prop_assert_eq!(jobs.len(), dealt.len());
            for taker in &takers {
                let of = |kind| {
                    let mine = dealt.iter().filter(move |(i, o)| *i == taker.index && o.kind == kind);
                    mine.map(|(_, offer)| offer).collect::<Vec<_>>()
                };
                let (trains, evals) = (of(JobKind::Train), of(JobKind::Eval));
                prop_assert!(trains.len() <= taker.room.trainings.min(1) as usize);
                prop_assert!(evals.len() <= taker.room.evaluations as usize);
                prop_assert!(of(JobKind::Noop).len() <= taker.room.noops as usize);
                prop_assert!(trains.is_empty() || evals.is_empty());
                if evals.iter().any(|offer| offer.losses > 0) {
                    prop_assert_eq!(evals.len(), 1);
                    prop_assert_eq!(taker.holds, Holds::Nothing);
                }
                if taker.holds == Holds::Suspect {
                    prop_assert!(evals.is_empty());
                }
            }
        }
    }
}
