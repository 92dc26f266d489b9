//! What follows when the run of a task fails.

use std::time::Duration;

use crate::{CRASHES_MAX_DEFAULT, RetrySettings, UNDECODABLE_MAX_DEFAULT};

/// What follows failures and crashes of a [`Task`](crate::Task), or of a function
/// ([`Jobs::add_fn_with`](crate::Jobs::add_fn_with)).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskSettings {
    /// What follows a failure. Default [`RetrySettings::default`]: 30 attempts in 18 hours.
    pub retry: RetrySettings,
    /// As [`JobInitializer::crashes_max`](crate::JobInitializer::crashes_max): `None` for no
    /// limit, and 0 means the same as 1. Default [`CRASHES_MAX_DEFAULT`], 10.
    pub crashes_max: Option<u32>,
    /// As [`JobInitializer::undecodable_max`](crate::JobInitializer::undecodable_max): with
    /// 0 the job ends as errored the first time. Default [`UNDECODABLE_MAX_DEFAULT`], an
    /// hour.
    pub undecodable_max: Duration,
}

impl Default for TaskSettings {
    fn default() -> Self {
        Self {
            retry: RetrySettings::default(),
            crashes_max: Some(CRASHES_MAX_DEFAULT),
            undecodable_max: UNDECODABLE_MAX_DEFAULT,
        }
    }
}

impl TaskSettings {
    /// With these retries.
    #[must_use]
    pub fn retry(mut self, retry: RetrySettings) -> Self {
        self.retry = retry;
        self
    }

    /// With so many crashes in a row before the job ends as errored; `None` for no limit,
    /// and 0 means the same as 1.
    #[must_use]
    pub fn crashes_max(mut self, crashes_max: Option<u32>) -> Self {
        self.crashes_max = crashes_max;
        self
    }

    /// With so long a time for a program that can decode what this one cannot; 0 for none.
    #[must_use]
    pub fn undecodable_max(mut self, undecodable_max: Duration) -> Self {
        self.undecodable_max = undecodable_max;
        self
    }
}
