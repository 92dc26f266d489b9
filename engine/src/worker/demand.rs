//! Which job types to claim next, and how many of each.

use std::collections::BTreeMap;

use crate::ids::JobType;
use crate::planted::{Bug, planted};
use crate::store::{Claimed, Quota};
use crate::time::Timestamp;

/// What the worker believes about the due jobs of each of its types.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    types: BTreeMap<JobType, TypeDemand>,
    /// The type that was served last when there were too few places for all;
    /// the next claim starts behind it, so that none starves.
    served_last: Option<JobType>,
}

#[derive(Clone, Debug, Default)]
struct TypeDemand {
    /// There may be due jobs that no claim has looked for yet.
    wanted: bool,
    /// The last claim took as many as it could: there are probably more.
    backlog: bool,
    /// Counts the reasons to look. A claim that was sent before the newest
    /// reason may not have seen what it is about.
    reasons: u64,
    /// `reasons` when the claim under way was sent.
    reasons_seen: u64,
    /// When the next job is due, on the worker's clock.
    next_due: Option<Timestamp>,
}

impl TypeDemand {
    fn want(&mut self) {
        self.wanted = true;
        self.reasons += 1;
    }
}

impl Demand {
    pub(super) fn new(types: impl Iterator<Item = JobType>) -> Self {
        Self {
            types: types.map(|t| (t, TypeDemand::default())).collect(),
            served_last: None,
        }
    }

    /// Whether the worker runs jobs of this type.
    pub(super) fn knows(&self, job_type: &JobType) -> bool {
        self.types.contains_key(job_type)
    }

    /// Any type may have due jobs.
    pub(super) fn want_all(&mut self) {
        self.types.values_mut().for_each(TypeDemand::want);
    }

    /// This type may have due jobs. Types that the worker does not run are
    /// none of its business.
    pub(super) fn want(&mut self, job_type: &JobType) {
        if let Some(demand) = self.types.get_mut(job_type) {
            demand.want();
        }
    }

    /// Wants the types whose next job has become due.
    pub(super) fn want_due(&mut self, now: Timestamp) {
        for demand in self.types.values_mut() {
            if demand.next_due.is_some_and(|at| at <= now) {
                demand.next_due = None;
                demand.want();
            }
        }
    }

    /// Whether any type may have due jobs.
    pub(super) fn is_any_wanted(&self) -> bool {
        self.types.values().any(|demand| demand.wanted)
    }

    /// When the next job of any type is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.types.values().filter_map(|d| d.next_due).min()
    }

    /// Shares `places` among the wanted types; empty when there is nothing to
    /// claim.
    ///
    /// Every type gets one place, if need be in turns. What is left goes to the
    /// types that are known to have more, or to all alike.
    pub(super) fn plan(&mut self, places: u32) -> Vec<Quota> {
        let wanted = self.wanted_in_turn();
        let count = wanted.len() as u32;
        if places == 0 || count == 0 {
            return Vec::new();
        }
        let (served, extra) = if count >= places {
            (&wanted[..places as usize], 0)
        } else {
            (&wanted[..], places - count)
        };
        if count > places {
            self.served_last = served.last().cloned();
        }
        let any_backlog = served.iter().any(|t| self.types[t].backlog);
        let takes_extra = |demand: &TypeDemand| demand.backlog || !any_backlog;
        let takers = served.iter().filter(|t| takes_extra(&self.types[*t]));
        let takers = takers.count() as u32;
        let (share, mut rest) = (extra / takers, extra % takers);
        let mut quotas = Vec::with_capacity(served.len());
        for job_type in served {
            let demand = self.types.get_mut(job_type).expect("served are known");
            demand.reasons_seen = demand.reasons;
            let mut jobs_max = 1;
            if takes_extra(demand) {
                jobs_max += share + u32::from(rest > 0);
                rest = rest.saturating_sub(1);
            }
            quotas.push(Quota {
                job_type: job_type.clone(),
                jobs_max,
            });
        }
        quotas
    }

    fn wanted_in_turn(&self) -> Vec<JobType> {
        let wanted = self.types.iter().filter(|(_, demand)| demand.wanted);
        let mut wanted: Vec<JobType> = wanted.map(|(job_type, _)| job_type.clone()).collect();
        if let Some(last) = &self.served_last
            && !planted(Bug::TypesDoNotTakeTurns)
        {
            let first = wanted.partition_point(|job_type| job_type <= last);
            wanted.rotate_left(first);
        }
        wanted
    }

    /// Learns from the reply to a claim with these quotas. `now` is the
    /// worker's clock, the reply has the store's.
    pub(super) fn learn(&mut self, now: Timestamp, quotas: &[Quota], claimed: &Claimed) {
        let mut taken: BTreeMap<&JobType, u32> = BTreeMap::new();
        for job_type in claimed.job_types() {
            *taken.entry(job_type).or_default() += 1;
        }
        for quota in quotas {
            let demand = self.types.get_mut(&quota.job_type);
            let demand = demand.expect("only known types are claimed");
            let taken = taken.get(&quota.job_type).copied().unwrap_or(0);
            demand.backlog = taken >= quota.jobs_max;
            let more = demand.backlog && !planted(Bug::LimitTruncatesThenSleeps);
            let woken = demand.reasons != demand.reasons_seen;
            demand.wanted = more || woken;
            demand.next_due = None;
        }
        for (job_type, due_at) in &claimed.next_due {
            if let Some(demand) = self.types.get_mut(job_type) {
                // The difference of two times of the store, so that a skew
                // between it and this worker does not matter.
                let wait = due_at.saturating_since(claimed.now);
                demand.next_due = Some(now.saturating_add(wait));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(types: &[&'static str]) -> Demand {
        Demand::new(types.iter().map(|name| JobType::new(name)))
    }

    fn plan(demand: &mut Demand, places: u32) -> Vec<(String, u32)> {
        let quotas = demand.plan(places).into_iter();
        quotas
            .map(|quota| (quota.job_type.to_string(), quota.jobs_max))
            .collect()
    }

    fn took_nothing(now: Timestamp) -> Claimed {
        Claimed {
            now,
            jobs: Vec::new(),
            left: Vec::new(),
            next_due: Vec::new(),
        }
    }

    #[test]
    fn places_are_shared_alike_while_nothing_is_known() {
        let mut demand = demand(&["a", "b", "c"]);
        demand.want_all();
        let quotas = plan(&mut demand, 8);
        assert_eq!(quotas, [("a".into(), 3), ("b".into(), 3), ("c".into(), 2)]);
    }

    #[test]
    fn types_take_turns_when_there_are_too_few_places() {
        let mut demand = demand(&["a", "b", "c"]);
        demand.want_all();
        let mut served = String::new();
        for _ in 0..3 {
            for (job_type, jobs_max) in plan(&mut demand, 2) {
                assert_eq!(jobs_max, 1);
                served += &job_type;
            }
        }
        assert_eq!(served, "abcabc");
    }

    #[test]
    fn a_type_with_a_backlog_gets_what_the_others_leave() {
        let mut demand = demand(&["a", "b"]);
        demand.want_all();
        demand.types.get_mut(&JobType::new("b")).unwrap().backlog = true;
        assert_eq!(plan(&mut demand, 10), [("a".into(), 1), ("b".into(), 9)]);
    }

    #[test]
    fn a_wake_up_during_a_claim_is_not_lost_in_its_reply() {
        let mut demand = demand(&["a"]);
        demand.want_all();
        let quotas = demand.plan(1);
        demand.want(&JobType::new("a"));
        demand.learn(Timestamp::EPOCH, &quotas, &took_nothing(Timestamp::EPOCH));
        assert_eq!(plan(&mut demand, 1), [("a".into(), 1)]);
        let quotas = demand.plan(1);
        demand.learn(Timestamp::EPOCH, &quotas, &took_nothing(Timestamp::EPOCH));
        assert_eq!(plan(&mut demand, 1), []);
    }

    #[test]
    fn the_wait_for_the_next_job_does_not_depend_on_clock_skew() {
        let mut demand = demand(&["a"]);
        demand.want_all();
        let quotas = demand.plan(1);
        let store_now = Timestamp::from_micros(1_000_000);
        let claimed = Claimed {
            next_due: vec![(JobType::new("a"), Timestamp::from_micros(1_000_007))],
            ..took_nothing(store_now)
        };
        demand.learn(Timestamp::EPOCH, &quotas, &claimed);
        assert_eq!(demand.next_due(), Some(Timestamp::from_micros(7)));
    }
}
