//! Why the run of a task failed.

use std::error::Error;
use std::fmt;

/// Any error, as `?` makes it: of a library, of `anyhow` or `eyre`, or a text.
///
/// It is no [`Error`] itself, so that it can be made of all of them.
///
/// # Examples
///
/// ```
/// use job::TaskError;
///
/// fn parse(text: &str) -> Result<u32, TaskError> {
///     if text.is_empty() {
///         return Err("there is nothing to parse".into());
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(parse("").unwrap_err().to_string(), "there is nothing to parse");
/// assert!(parse("7 apples").is_err());
/// ```
pub struct TaskError(Box<dyn Error + Send + Sync>);

impl TaskError {
    /// The error itself, to be looked at or handed on.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
