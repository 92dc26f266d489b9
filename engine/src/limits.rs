//! A limit on everything. What is beyond is refused with a
//! [`Rejection`](crate::Rejection) before it reaches a store.

/// Bytes in the name of a job type.
pub const JOB_TYPE_LEN_MAX: usize = 255;

/// Bytes in a config or an execution state, as JSON: 64 MiB.
pub const PAYLOAD_LEN_MAX: usize = 64 * 1024 * 1024;

/// Bytes of an error that the history keeps: 16 KiB; the rest is cut off.
pub const ERROR_LEN_MAX: usize = 16 * 1024;

/// Bytes of a stored trace context. A W3C `traceparent` has 55, and a `tracestate` beside it
/// at least the 512 that everybody should pass on.
pub const TRACE_LEN_MAX: usize = 1_024;

/// Entries in one command: jobs to spawn, to finish, to claim in all.
/// It bounds how long one transaction holds its locks.
pub const BATCH_LEN_MAX: usize = 1_000;

/// Attempts and crashes are counted up to here, which every database can hold.
pub const COUNT_MAX: u32 = i32::MAX as u32;

/// Ended runs that are read with a job, its last, and those of a page of its history.
pub const HISTORY_LEN_MAX: usize = 50;

/// Job types that one claim or reclaim may name.
pub const TYPES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_is_documented() {
        assert_eq!(PAYLOAD_LEN_MAX, 67_108_864);
        assert_eq!(ERROR_LEN_MAX, 16_384);
        assert_eq!(COUNT_MAX, 2_147_483_647);
    }
}
