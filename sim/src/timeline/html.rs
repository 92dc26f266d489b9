//! The timeline as one page that needs nothing else: it can be opened from a
//! disk, mailed, or kept by a CI.

use serde::Serialize;
use std::collections::BTreeSet;

use super::clock;
use super::spans::{LeaseSpan, ProcessSpan, RunSpan, Spans, fate_name};
use crate::event::Who;
use crate::scenario::{Fault, Scenario};
use crate::trace::{Entry, Fate, Kind, fault_text};
use crate::{Report, check::Violation};

const PAGE: &str = include_str!("timeline.html");
const STYLE: &str = include_str!("timeline.css");
const SCRIPT: [&str; 3] = [
    include_str!("timeline.layout.js"),
    include_str!("timeline.draw.js"),
    include_str!("timeline.js"),
];

/// What the script draws. Times are microseconds of true time; lanes are keys
/// of workers, or one of [`STORE`] and [`WORLD`].
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    seed: u64,
    end: u64,
    calm: u64,
    /// The key, and what is worth knowing of it.
    workers: Vec<(u32, String)>,
    /// Names of kinds, and of fates for ends of runs; events have their places.
    kinds: Vec<String>,
    events: Vec<EventRow<'a>>,
    processes: Vec<ProcessSpan>,
    runs: Vec<RunSpan>,
    leases: Vec<LeaseSpan>,
    faults: Vec<FaultSpan>,
    chain: Vec<usize>,
    violation: Option<&'a Violation>,
}

/// When, which lane, who, what kind, the text, the jobs, the run, the cause,
/// whether it is quiet. A tuple, for there are many of them.
type EventRow<'a> = (
    u64,
    i64,
    Option<String>,
    usize,
    &'a str,
    &'a [u32],
    Option<(u32, i64)>,
    Option<usize>,
    u8,
);

#[derive(Serialize)]
struct FaultSpan {
    /// All lanes if none.
    worker: Option<u32>,
    from: u64,
    to: u64,
    text: String,
}

const STORE: i64 = -1;
const WORLD: i64 = -2;

/// One page with the timeline, its violation and what led to it. It loads
/// nothing from elsewhere.
pub fn html(scenario: &Scenario, report: &Report, title: &str) -> String {
    let data = serde_json::to_string(&data(scenario, report, title))
        .expect("keys are strings and numbers are finite");
    // No text can end the element that holds it, or open a comment in it.
    let data = data.replace('<', "\\u003c");
    // Data last: it may contain what looks like a placeholder.
    PAGE.replace("{{title}}", &escape(title))
        .replace("{{summary}}", &escape(&summary(scenario, report)))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", &SCRIPT.concat())
        .replace("{{data}}", &data)
}

fn data<'a>(scenario: &'a Scenario, report: &'a Report, title: &'a str) -> Data<'a> {
    let entries = &report.trace.entries;
    let last = entries.last().map_or(0, |entry| entry.at_us);
    let end = report.simulated_us.max(last).max(1);
    let spans = Spans::of(&report.trace, end);
    let kind_of = |entry: &Entry| (entry.kind, entry.fate);
    let mut kinds: Vec<(Kind, Option<Fate>)> = entries.iter().map(kind_of).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let events = entries.iter().map(|entry| {
        let kind = kinds.binary_search(&kind_of(entry));
        let lane = match entry.who {
            Some(Who::OUTSIDE) => WORLD,
            Some(who) => i64::from(who.worker),
            None if entry.kind == Kind::Applied => STORE,
            None => WORLD,
        };
        (
            entry.at_us,
            lane,
            entry.subject(),
            kind.expect("all kinds are listed"),
            entry.text.as_str(),
            entry.jobs.as_slice(),
            entry.run,
            entry.cause,
            u8::from(entry.quiet),
        )
    });
    let faults = scenario.faults.iter().filter_map(fault_span);
    let chain = report.violation.as_ref();
    let chain = chain.map(|violation| report.trace.causal_chain(violation));
    Data {
        title,
        seed: scenario.seed,
        end,
        calm: scenario.calm_from_ms.saturating_mul(1_000),
        workers: workers(scenario, report),
        events: events.collect(),
        kinds: kinds.iter().map(kind_name).collect(),
        processes: spans.processes,
        runs: spans.runs,
        leases: spans.leases,
        faults: faults.filter(|fault| fault.from <= end).collect(),
        chain: chain.unwrap_or_default(),
        violation: report.violation.as_ref(),
    }
}

fn workers(scenario: &Scenario, report: &Report) -> Vec<(u32, String)> {
    let mut keys: BTreeSet<u32> = scenario.workers.iter().map(|worker| worker.key).collect();
    let seen = report.trace.entries.iter().filter_map(|entry| entry.who);
    keys.extend(
        seen.filter(|who| *who != Who::OUTSIDE)
            .map(|who| who.worker),
    );
    let note = |key| {
        let knobs = scenario.worker(key).map(|worker| &worker.knobs);
        knobs.map(|knobs| format!("{} jobs, lease {} ms", knobs.jobs_max, knobs.lease_ms))
    };
    keys.into_iter()
        .map(|key| (key, note(key).unwrap_or_default()))
        .collect()
}

fn kind_name((kind, fate): &(Kind, Option<Fate>)) -> String {
    match fate {
        Some(fate) => fate_name(*fate).to_owned(),
        None => format!("{kind:?}"),
    }
}

fn fault_span(fault: &Fault) -> Option<FaultSpan> {
    let (from, to) = fault.span_ms()?;
    Some(FaultSpan {
        worker: fault.worker(),
        from: from.saturating_mul(1_000),
        to: to.saturating_mul(1_000),
        text: fault_text(fault),
    })
}

fn summary(scenario: &Scenario, report: &Report) -> String {
    let found = match &report.violation {
        Some(_) => "a property does not hold",
        None => "every property holds",
    };
    format!(
        "seed {}: {} workers, {} jobs, {} faults, {} events in {}; {found}",
        scenario.seed,
        scenario.workers.len(),
        scenario.jobs.len(),
        scenario.faults.len(),
        report.events,
        clock(report.simulated_us),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::synthetic;

    fn embedded(page: &str) -> serde_json::Value {
        let start = "<script type=\"application/json\" id=\"data\">";
        let (_, rest) = page.split_once(start).expect("the page has data");
        let (data, _) = rest.split_once("</script>").expect("the data ends");
        serde_json::from_str(data).expect("the data is JSON")
    }

    #[test]
    fn the_page_escapes_what_it_embeds_and_loads_nothing() {
        let s = synthetic::overlap();
        let page = html(&s.scenario, &s.report, "a <title> & {{data}}");
        let violation = s.report.violation.expect("it is violated").text;
        assert!(violation.contains("</script><b>"));
        assert!(!page.contains("</script><b>"));
        assert!(page.contains("\\u003c/script>\\u003cb>though"));
        assert!(page.contains("a &lt;title&gt; &amp; "));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(embedded(&page)["violation"]["text"], violation);
    }

    #[test]
    fn a_run_whose_job_is_taken_back_goes_on_without_a_lease() {
        let s = synthetic::overlap();
        let data = embedded(&html(&s.scenario, &s.report, "t"));
        let runs = data["runs"].as_array().expect("there are runs");
        let run = runs.iter().find(|run| run["job"] == 1 && run["fence"] == 1);
        let run = run.expect("it ran");
        // The lease was renewed at 500.4 ms for a second.
        assert_eq!(run["lost"], serde_json::json!([[1_500_400, 2_300_000]]));
        assert_eq!(run["end"], "failed");
        let crashed = runs.iter().find(|run| run["job"] == 3).expect("it ran");
        assert_eq!(
            (&crashed["end"], &crashed["to"]),
            (&"crashed".into(), &900_000.into())
        );
    }

    #[test]
    fn a_report_without_a_trace_makes_a_page_all_the_same() {
        let s = synthetic::Synthetic::new(2, vec![]);
        let data = embedded(&html(&s.scenario, &s.report, "t"));
        assert_eq!(data["events"].as_array().map(Vec::len), Some(0));
    }

    /// Set `JOB_SIM_PAGES` to a directory to look at the pages.
    #[test]
    fn twenty_thousand_events_make_a_page_of_two_megabytes() {
        let (few, many) = (synthetic::overlap(), synthetic::busy(20_000));
        let pages = [&few, &many].map(|s| html(&s.scenario, &s.report, "a simulation"));
        assert!(pages[1].len() < 2_500_000, "{}", pages[1].len());
        if let Ok(directory) = std::env::var("JOB_SIM_PAGES") {
            for (page, name) in pages.iter().zip(["few", "many"]) {
                let path = format!("{directory}/{name}.html");
                std::fs::write(path, page).expect("the directory can be written");
            }
        }
    }
}
