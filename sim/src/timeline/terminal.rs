//! The timeline as text: one column a worker, one line an event.

use std::collections::{BTreeMap, BTreeSet};

use super::clock;
use super::process::{Process, State};
use crate::event::Who;
use crate::scenario::Scenario;
use crate::trace::{Entry, Fate, Kind};
use crate::{Report, check::Violation};

/// How to print a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalOptions {
    /// The longest line, in characters; text that is longer is continued below.
    /// Default 120; many workers may need more.
    pub width: usize,
    /// With ANSI escapes for colours. Default no.
    pub colour: bool,
    /// Which events. Default [`Show::Loud`].
    pub show: Show,
}

impl Default for TerminalOptions {
    fn default() -> Self {
        Self {
            width: 120,
            colour: false,
            show: Show::Loud,
        }
    }
}

/// Which events to print. Those of the causal chain always are; where others
/// are left out, their number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// All.
    All,
    /// All but the [quiet](Entry::quiet) ones.
    Loud,
    /// The causal chain, starts and ends of processes, and so many of the other
    /// loud events before and after each of the chain.
    Chain {
        /// How many.
        context: usize,
    },
}

/// The timeline as text, with the violation and what led to it at the end.
pub fn terminal(scenario: &Scenario, report: &Report, options: TerminalOptions) -> String {
    let mut page = Page::new(scenario, report, options);
    if !report.trace.entries.is_empty() {
        page.legend();
        page.header();
        page.events();
    }
    page.result();
    page.out
}

const LEGEND: [&str; 5] = [
    "┃ up, with its runs at work   ┊ shuts down   ╏ stands still   (blank) down",
    "⚙ is configured   ● starts   ✗ crashes   ‖ stands still   ▷ goes on   ▽ is asked to shut down   ■ has stopped",
    "← sends   ◆ the store acts   → learns   ! gets no answer   ? nobody hears   ♪ announcement",
    "▶ a run starts   ✓ completes   ↻ again   × fails   ⊗ is aborted   ⊘ its lease is lost",
    "▼ a fault   ≈ disturbed   + a job is spawned   ◇ a run is told to stop   ▪ keeps its state   • commits   ✎ a note",
];

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Dim,
    Bold,
    Good,
    Warn,
    Bad,
}

struct Page<'a> {
    report: &'a Report,
    options: TerminalOptions,
    /// The workers, by key, with the place of their column.
    columns: BTreeMap<u32, usize>,
    processes: Vec<Process>,
    /// The causal chain: places of events, and their numbers in it.
    chain: BTreeMap<usize, usize>,
    cell: usize,
    time: usize,
    out: String,
}

impl<'a> Page<'a> {
    fn new(scenario: &Scenario, report: &'a Report, options: TerminalOptions) -> Self {
        let entries = &report.trace.entries;
        let mut keys: BTreeSet<u32> = scenario.workers.iter().map(|worker| worker.key).collect();
        let seen = entries.iter().filter_map(|entry| entry.who);
        keys.extend(
            seen.filter(|who| *who != Who::OUTSIDE)
                .map(|who| who.worker),
        );
        // What a test asserts at its end has no event that led to it.
        let chain = report.violation.as_ref();
        let chain =
            chain.filter(|violation| !scenario.is_of_application() || violation.job.is_some());
        let chain = chain.map(|violation| report.trace.causal_chain(violation));
        let cell = keys.iter().map(|key| format!("w{key}").len() + 1).max();
        Self {
            report,
            options,
            processes: vec![Process::default(); keys.len()],
            columns: keys.into_iter().zip(0..).collect(),
            chain: chain.into_iter().flatten().zip(1..).collect(),
            cell: cell.unwrap_or_default().max(4),
            time: clock(report.simulated_us).len(),
            out: String::new(),
        }
    }

    fn legend(&mut self) {
        for line in LEGEND {
            for line in wrap(line, self.options.width) {
                self.styled(&line, Style::Dim);
                self.end_line();
            }
        }
        self.end_line();
    }

    fn header(&mut self) {
        let mut line = format!("{:5}{:<width$}  store ", "", "time", width = self.time);
        for key in self.columns.keys() {
            line += &format!("{:<width$}", format!("w{key}"), width = self.cell);
        }
        self.styled(line.trim_end(), Style::Bold);
        self.end_line();
        self.styled(&"─".repeat(self.options.width), Style::Dim);
        self.end_line();
    }

    fn events(&mut self) {
        let entries = &self.report.trace.entries;
        let shown = self.shown();
        let (mut elided, mut loud) = (0, false);
        for (place, entry) in entries.iter().enumerate() {
            let column = self.column(entry);
            if !shown.contains(&place) {
                elided += 1;
                loud |= !entry.quiet;
            } else {
                self.elision(elided, loud);
                (elided, loud) = (0, false);
            }
            if let Some(column) = column {
                self.processes[column].take_in(entry);
            }
            if shown.contains(&place) {
                self.event(place, entry, column);
            }
        }
        self.elision(elided, loud);
    }

    /// The places of the events to print.
    fn shown(&self) -> BTreeSet<usize> {
        let entries = self.report.trace.entries.iter().enumerate();
        let loud = entries.filter(|(place, entry)| !entry.quiet || self.chain.contains_key(place));
        match self.options.show {
            Show::All => (0..self.report.trace.entries.len()).collect(),
            Show::Loud => loud.map(|(place, _)| place).collect(),
            Show::Chain { context } => {
                let loud: Vec<(usize, &Entry)> = loud.collect();
                let mut shown = BTreeSet::new();
                for (nth, (place, entry)) in loud.iter().enumerate() {
                    if self.chain.contains_key(place) {
                        let from = nth.saturating_sub(context);
                        let to = loud
                            .len()
                            .min(nth.saturating_add(context).saturating_add(1));
                        shown.extend(loud[from..to].iter().map(|(place, _)| *place));
                    } else if matches!(entry.kind, Kind::Up | Kind::Crashed | Kind::Stopped) {
                        shown.insert(*place);
                    }
                }
                shown
            }
        }
    }

    fn event(&mut self, place: usize, entry: &Entry, column: Option<usize>) {
        let (mark, style) = mark(entry);
        let text = match entry.subject() {
            Some(subject) => format!("{subject} {}", entry.text),
            None => entry.text.clone(),
        };
        let number = self.chain.get(&place);
        let number = number.map_or(String::new(), |number| format!("{number}▸"));
        let lines = wrap(&text, self.text_width());
        for (nth, line) in lines.iter().enumerate() {
            let first = nth == 0;
            let (number, time) = match first {
                true => (number.as_str(), clock(entry.at_us)),
                false => ("", String::new()),
            };
            self.styled(&format!("{number:>4} "), Style::Bold);
            self.styled(&format!("{time:<width$}", width = self.time), Style::Dim);
            self.lanes(if first {
                Some((column, mark, style))
            } else {
                None
            });
            let indent = if first { "" } else { "  " };
            let style = if entry.quiet { Style::Dim } else { style };
            self.styled(&format!("{indent}{line}"), style);
            self.end_line();
        }
    }

    fn elision(&mut self, elided: usize, loud: bool) {
        if elided == 0 {
            return;
        }
        self.out += &" ".repeat(5 + self.time);
        self.lanes(None);
        let quiet = if loud { "" } else { "quiet " };
        let plural = if elided == 1 { "" } else { "s" };
        self.styled(&format!("… {elided} {quiet}event{plural}"), Style::Dim);
        self.end_line();
    }

    /// The columns of one line, with the mark of what happens in one of them;
    /// no column is that of the store.
    fn lanes(&mut self, mark: Option<(Option<usize>, char, Style)>) {
        match mark {
            Some((None, mark, style)) => {
                self.out += "    ";
                self.styled(&mark.to_string(), style);
                self.out += "   ";
            }
            _ => self.styled("    │   ", Style::Dim),
        }
        for column in 0..self.processes.len() {
            let process = &self.processes[column];
            let count = match process.at_work.len() {
                0 => String::new(),
                count => count.to_string(),
            };
            let rest = format!("{count:<width$}", width = self.cell - 1);
            let lane = match process.state {
                State::Down => ' ',
                State::Up => '┃',
                State::Paused => '╏',
                State::Draining => '┊',
            };
            match mark {
                Some((Some(of), mark, style)) if of == column => {
                    self.styled(&mark.to_string(), style)
                }
                _ => self.styled(&lane.to_string(), Style::Dim),
            }
            self.out += &rest;
        }
        self.out.push(' ');
    }

    fn column(&self, entry: &Entry) -> Option<usize> {
        entry
            .who
            .and_then(|who| self.columns.get(&who.worker).copied())
    }

    fn result(&mut self) {
        let Some(violation) = &self.report.violation else {
            let (events, time) = (self.report.events, clock(self.report.simulated_us));
            self.out += &format!("\nEvery property holds over {events} events in {time}.\n");
            return;
        };
        self.violation(violation);
        if self.chain.is_empty() {
            return;
        }
        self.end_line();
        self.styled("What led to it", Style::Bold);
        self.end_line();
        let chain = self.chain.clone();
        let entries = &self.report.trace.entries;
        let subjects = chain.keys().filter_map(|place| entries[*place].subject());
        let widest = subjects.map(|subject| subject.len()).max().unwrap_or(0);
        for (place, number) in &chain {
            let entry = &entries[*place];
            let mut text = entry.text.clone();
            if let Some(cause) = entry.cause.and_then(|cause| chain.get(&cause)) {
                // The number stays with its word.
                text += &format!(" (after\u{a0}{cause})");
            }
            let (_, style) = mark(entry);
            let indent = 4 + 1 + self.time + 2 + widest + 2;
            let lines = wrap(&text, self.options.width.saturating_sub(indent).max(30));
            for (nth, line) in lines.iter().enumerate() {
                if nth == 0 {
                    let subject = entry.subject().unwrap_or_default();
                    self.styled(&format!("{number:>4} "), Style::Bold);
                    self.styled(&clock(entry.at_us), Style::Dim);
                    self.out += &format!("  {subject:<widest$}  ");
                } else {
                    self.out += &" ".repeat(indent + 2);
                }
                self.styled(&line.replace('\u{a0}', " "), style);
                self.end_line();
            }
        }
    }

    fn violation(&mut self, violation: &Violation) {
        let head = format!("━━ ✗ {} ", violation.check);
        let rest = self.options.width.saturating_sub(head.chars().count());
        self.end_line();
        self.styled(&format!("{head}{}", "━".repeat(rest)), Style::Bad);
        self.end_line();
        for line in wrap(
            &violation.text,
            self.options.width.saturating_sub(3).max(30),
        ) {
            self.out += &format!("   {line}\n");
        }
        let job = violation.job.map(|job| format!("job {job}"));
        let worker = violation
            .worker
            .filter(|worker| *worker != Who::OUTSIDE.worker);
        let worker = worker.map(|worker| format!("w{worker}"));
        let at = Some(format!("at {}", clock(self.report.simulated_us)));
        let facts: Vec<String> = [job, worker, at].into_iter().flatten().collect();
        self.styled(&format!("   {}", facts.join(", ")), Style::Dim);
        self.end_line();
    }

    fn text_width(&self) -> usize {
        let lanes = 8 + self.cell * self.processes.len() + 1;
        let before = 5 + self.time + lanes;
        self.options.width.saturating_sub(before + 2).max(30)
    }

    fn styled(&mut self, text: &str, style: Style) {
        let code = match style {
            Style::Plain => "",
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "1;31",
        };
        if self.options.colour && !code.is_empty() && !text.trim().is_empty() {
            self.out += &format!("\x1b[{code}m{text}\x1b[0m");
        } else {
            self.out += text;
        }
    }

    fn end_line(&mut self) {
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.out.push('\n');
    }
}

fn mark(entry: &Entry) -> (char, Style) {
    match entry.kind {
        Kind::Up => ('●', Style::Good),
        Kind::Configured => ('⚙', Style::Dim),
        Kind::Crashed => ('✗', Style::Bad),
        Kind::ShutdownAsked => ('▽', Style::Warn),
        Kind::Stopped => ('■', Style::Warn),
        Kind::Paused => ('‖', Style::Warn),
        Kind::Resumed => ('▷', Style::Good),
        Kind::Disturbed => ('≈', Style::Warn),
        Kind::Sent => ('←', Style::Plain),
        Kind::Applied => ('◆', Style::Plain),
        Kind::Answered => ('→', Style::Plain),
        Kind::Failed => ('!', Style::Bad),
        Kind::Unheard => ('?', Style::Warn),
        Kind::Started => ('▶', Style::Good),
        Kind::Told => ('◇', Style::Warn),
        Kind::Aborted => ('⊗', Style::Warn),
        Kind::Kept => ('▪', Style::Plain),
        Kind::Committing | Kind::Committed => ('•', Style::Plain),
        Kind::Ended => match entry.fate {
            Some(Fate::Completed) | None => ('✓', Style::Good),
            Some(Fate::Rescheduled) => ('↻', Style::Plain),
            Some(Fate::Failed) => ('×', Style::Bad),
            Some(Fate::LeaseLost) => ('⊘', Style::Warn),
            Some(Fate::Aborted) => ('⊗', Style::Warn),
        },
        Kind::Woken | Kind::Listening => ('♪', Style::Dim),
        Kind::Spawning => ('+', Style::Dim),
        Kind::Spawned => ('+', Style::Plain),
        Kind::Noted => ('✎', Style::Bold),
        Kind::Logged => ('¶', Style::Dim),
        Kind::Fault => ('▼', Style::Warn),
        Kind::Calm => ('○', Style::Good),
    }
}

/// Lines of at most so many characters, broken between words; a longer word is
/// broken inside.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![];
    for paragraph in text.lines() {
        let mut line = String::new();
        let mut length = 0;
        for word in paragraph.split(' ') {
            let mut word: Vec<char> = word.chars().collect();
            if length > 0 && length + 1 + word.len() > width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            } else if length > 0 {
                line.push(' ');
                length += 1;
            }
            while length + word.len() > width {
                let rest = word.split_off(width - length);
                line.extend(word);
                lines.push(std::mem::take(&mut line));
                (word, length) = (rest, 0);
            }
            length += word.len();
            line.extend(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests;
