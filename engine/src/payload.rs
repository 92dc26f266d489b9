//! Text that belongs to the user and passes through unread.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::ERROR_LEN_MAX;

/// A JSON text: the config of a job, or the execution state that its runner
/// stored. The engine never looks inside, and `Debug` shows only the length, so
/// that it stays out of logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Arc<str>);

impl Payload {
    /// Wraps a text that the caller has serialized as JSON.
    pub fn from_json(json: impl Into<Arc<str>>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// What went wrong in a run, as the history keeps it.
///
/// At most [`ERROR_LEN_MAX`] bytes, cut at a character; NUL, which Postgres
/// cannot hold in a text, is replaced by U+FFFD. So recording an error never
/// fails because of the error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ErrorText(Arc<str>);

impl ErrorText {
    /// Keeps what fits of `text`.
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(ERROR_LEN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let kept = &text[..end];
        if !kept.contains('\0') {
            return Self(kept.into());
        }
        // The replacement is longer than what it replaces, so cut again.
        Self::new(&kept.replace('\0', "\u{fffd}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ErrorText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_text_is_cut_at_a_character_and_holds_no_nul() {
        assert_eq!(ErrorText::new("a\0b").as_str(), "a\u{fffd}b");
        assert_eq!(ErrorText::new("a\0b").to_string(), "a\u{fffd}b");
        let long = "é".repeat(ERROR_LEN_MAX);
        assert_eq!(ErrorText::new(&long).as_str().len(), ERROR_LEN_MAX);
        let nuls = "\0".repeat(ERROR_LEN_MAX);
        let text = ErrorText::new(&nuls);
        assert!(text.as_str().len() <= ERROR_LEN_MAX && !text.as_str().contains('\0'));
    }

    #[test]
    fn debug_does_not_show_a_payload() {
        let payload = Payload::from_json(r#"{"password":"hunter2"}"#);
        assert_eq!(format!("{payload:?}"), "Payload(22 bytes)");
    }
}
