//! The store of `job` on sqlite.
