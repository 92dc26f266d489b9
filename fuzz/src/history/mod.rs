//! What is kept of a job: decoding it, folding it, and showing it.

mod commands;
mod shown;

use std::fmt;

use job::{JobEvent, JobState};
use job_engine::history::{Lease, Live, RunRecord, Snapshot};
use job_engine::lifecycle::{RunEnd, State};
use job_engine::limits::ERROR_LEN_MAX;
use job_engine::{ErrorText, JobType, Payload, Run, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::source::Source;

/// Decodes the bytes, or makes a history of them, or commands that make one.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.byte() % 8 {
        0 | 1 => {
            if let Some(snapshot) = decode::<Snapshot>(source.rest()) {
                history(&snapshot);
            }
        }
        2 => decode_any(&mut source),
        3 => {
            while !source.is_empty() {
                code(i16::from_be_bytes(source.bytes()));
                error_text(&source.text());
            }
        }
        4 | 5 => history(&source.snapshot()),
        _ => commands::run(&mut source),
    }
}

/// The bytes give an error, or a value that is the same after it was written and
/// read again.
fn decode<T>(json: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    let value = serde_json::from_slice::<T>(json).ok()?;
    written_and_read(&value);
    Some(value)
}

fn written_and_read<T>(value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug,
{
    let json = serde_json::to_string(value).expect("a value can be written");
    let read = serde_json::from_str::<T>(&json);
    let read = read.unwrap_or_else(|error| panic!("{error}, in {json}"));
    assert_eq!(read, *value, "written and read as {json}");
}

fn decode_any(source: &mut Source<'_>) {
    let kind = source.byte() % 12;
    let json = source.rest();
    match kind {
        0 => drop(decode::<Vec<RunRecord>>(json)),
        1 => drop(decode::<Live>(json)),
        2 => drop(decode::<Lease>(json)),
        3 => {
            if let Some(text) = decode::<ErrorText>(json) {
                error_text(text.as_str());
            }
        }
        4 => drop(decode::<Payload>(json)),
        5 => drop(decode::<JobType>(json)),
        6 => {
            if let Some(at) = decode::<Timestamp>(json) {
                assert!(Timestamp::MIN <= at && at <= Timestamp::MAX);
            }
        }
        7 => drop(decode::<RunEnd>(json)),
        8 => drop(decode::<State>(json)),
        9 => drop(decode::<Run>(json)),
        10 => drop(decode::<JobEvent>(json)),
        _ => drop(decode::<JobState>(json)),
    }
}

fn code(code: i16) {
    let end = RunEnd::from_code(code);
    assert_eq!(
        end.map(RunEnd::code),
        (1..=7).contains(&code).then_some(code)
    );
}

/// The history keeps what fits of a text, and nothing that a database refuses.
fn error_text(text: &str) {
    let kept = ErrorText::new(text);
    let (kept, len) = (kept.as_str(), kept.as_str().len());
    assert!(len <= ERROR_LEN_MAX, "{len} bytes are kept");
    assert!(!kept.contains('\0'), "a NUL is kept");
    let replaced = text.replace('\0', "\u{fffd}");
    assert!(replaced.starts_with(kept), "{kept:?} is not of {text:?}");
    // What is cut off did not fit, be it for the length of one character.
    let whole = kept.len() == replaced.len();
    assert!(
        whole || len + 4 > ERROR_LEN_MAX,
        "only {len} bytes are kept"
    );
    assert_eq!(ErrorText::new(kept).as_str(), kept, "kept again");
}

/// Any history can be written, read, folded and shown.
fn history(snapshot: &Snapshot) {
    written_and_read(snapshot);
    assert_eq!(snapshot.fold(), folded(snapshot), "{snapshot:?}");
    shown::check(snapshot);
}

/// The state that a history leads to; `None` if something happens in it after
/// the end of the job.
fn folded(snapshot: &Snapshot) -> Option<State> {
    let ends: Vec<RunEnd> = snapshot.runs.iter().map(|run| run.end).collect();
    let running = snapshot
        .live
        .as_ref()
        .is_some_and(|live| live.lease.is_some());
    let last_is_over = match ends.split_last() {
        Some((_, before)) if before.iter().any(|end| end.is_final()) => return None,
        Some((last, _)) => last.is_final(),
        None => false,
    };
    match (last_is_over, running) {
        (true, true) => None,
        (true, false) if ends.last() == Some(&RunEnd::Completed) => Some(State::Completed),
        (true, false) => Some(State::Errored),
        (false, true) => Some(State::Running),
        (false, false) => Some(State::Pending),
    }
}
