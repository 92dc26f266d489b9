//! What led to a violation.

use std::collections::BTreeSet;

use super::{Entry, Kind, Trace};
use crate::check::Violation;

/// A longer chain explains nothing.
const CHAIN_MAX: usize = 40;
/// So many of the events of the job itself are in it.
const STORY_MAX: usize = 10;

impl Trace {
    /// The events that led to the violation that the last one showed, by place:
    /// what caused it, and what happened to its job and its worker before.
    pub fn causal_chain(&self, violation: &Violation) -> Vec<usize> {
        let Some(last) = self.entries.len().checked_sub(1) else {
            return Vec::new();
        };
        let mut chain = BTreeSet::new();
        let mut open = vec![last];
        // The story of the job, without what changed nothing.
        let in_story = |entry: &Entry| {
            let kind = matches!(entry.kind, Kind::Applied | Kind::Started | Kind::Ended);
            kind && !entry.quiet && violation.job.is_some_and(|job| entry.jobs.contains(&job))
        };
        let story = self.entries.iter().enumerate().rev();
        let story = story.filter(|(_, entry)| in_story(entry)).take(STORY_MAX);
        open.extend(story.map(|(place, _)| place));
        while let Some(place) = open.pop() {
            if !chain.insert(place) || chain.len() > CHAIN_MAX {
                continue;
            }
            let entry = &self.entries[place];
            open.extend(entry.cause);
            open.extend(entry.before);
        }
        // What went wrong with the workers in the chain.
        let workers: Vec<u32> = chain
            .iter()
            .filter_map(|place| self.entries[*place].who)
            .map(|who| who.worker)
            .chain(violation.worker)
            .collect();
        let first = chain.first().copied().unwrap_or(0);
        for (place, entry) in self.entries.iter().enumerate().skip(first).rev() {
            let its = entry.who.is_some_and(|who| workers.contains(&who.worker));
            let bad = matches!(
                entry.kind,
                Kind::Crashed | Kind::Paused | Kind::Resumed | Kind::ShutdownAsked | Kind::Failed
            );
            if its && bad && chain.len() < CHAIN_MAX {
                chain.insert(place);
                chain.extend(entry.cause);
            }
        }
        chain.into_iter().collect()
    }
}
