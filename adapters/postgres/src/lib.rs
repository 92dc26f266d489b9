//! The store of `job` on postgres.
