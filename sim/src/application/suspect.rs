//! Who is to blame when a seed does not always give the same.

use crate::check::Violation;
use crate::explore::{DETERMINISM, differing};
use crate::recorder::{Keep, Report};
use crate::scenario::Scenario;
use crate::trace::{Entry, Kind};

/// The first event in which two simulations of a scenario differ, and whose doing it is.
pub(super) fn suspect(scenario: &Scenario, run: &dyn Fn(&Scenario, Keep) -> Report) -> Violation {
    let text = match differing(scenario, run) {
        Some((one, other, place)) => describe(&one, &other, place),
        None => {
            "two simulations of the seed differed, and then no more: look for what is shared by \
         all simulations of the process, such as a static"
                .to_owned()
        }
    };
    Violation::new(DETERMINISM, text)
}

fn describe(one: &Report, other: &Report, place: usize) -> String {
    let entries = [one, other].map(|report| report.trace.entries.get(place));
    let texts = entries.map(in_words);
    let what = if texts[0] == texts[1] {
        format!("{}, with other contents", texts[0])
    } else {
        format!("{}\n  or: {}", texts[0], texts[1])
    };
    let whose = entries
        .into_iter()
        .flatten()
        .find_map(|entry| culprit(one, entry));
    let whose = whose.unwrap_or_else(|| "the test, or what stands in for other services".into());
    let before = place
        .checked_sub(1)
        .and_then(|last| one.trace.entries.get(last));
    format!(
        "two simulations of the seed differ first in event {place}:\n  \
         {what}\nWhat came last in both: {}\nIt is the doing of {whose}. Does it ask for the \
         time or for randomness anywhere but at the clock of its job and `Sim::draw`, go \
         through a `HashMap`, start tasks or threads, or share a static?",
        in_words(before)
    )
}

fn in_words(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else {
        return "the simulation is over".to_owned();
    };
    let subject = entry.subject().unwrap_or_else(|| "the test".to_owned());
    let seconds = entry.at_us as f64 / 1e6;
    format!("at {seconds:.3} s {subject} {}", entry.text)
}

/// The runner, or else the process, whose event this is.
fn culprit(report: &Report, entry: &Entry) -> Option<String> {
    let of_run = |(job, fence): (u32, i64)| {
        let entries = report.trace.entries.iter();
        let mut started = entries.filter(|entry| entry.kind == Kind::Started);
        let started = started.find(|entry| entry.run == Some((job, fence)))?;
        Some(format!(
            "the runner that {} {}",
            started.subject()?,
            started.text
        ))
    };
    let run = entry.run.and_then(of_run);
    // A command of a runner comes from one of those at work in its process.
    let of_process = || {
        let who = entry.who?;
        let entries = report.trace.entries.iter();
        let until = entries.take_while(|other| other.at_us <= entry.at_us);
        let at_work = until.filter(|other| other.who == Some(who)).fold(
            Vec::new(),
            |mut at_work: Vec<(u32, i64)>, other| {
                match (other.kind, other.run) {
                    (Kind::Started, Some(run)) => at_work.push(run),
                    (Kind::Ended, Some(run)) => at_work.retain(|other| *other != run),
                    _ => {}
                }
                at_work
            },
        );
        let runs = at_work.into_iter().filter_map(of_run);
        let runs: Vec<String> = runs.collect();
        match runs.as_slice() {
            [] => None,
            [run] => Some(run.clone()),
            runs => Some(format!("one of these: {}", runs.join("; "))),
        }
    };
    run.or_else(of_process)
}
