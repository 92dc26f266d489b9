//! The store in memory passes the suite that every store passes.

use job_engine::Timestamp;
use job_tokio::MemoryStore;

async fn empty_store() -> (MemoryStore, ()) {
    (MemoryStore::new(|| Timestamp::EPOCH), ())
}

job_tokio::conformance_tests!(empty_store);
