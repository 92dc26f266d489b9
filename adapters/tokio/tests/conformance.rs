//! The store in memory passes the suite.

use job_engine::Timestamp;
use job_tokio::MemoryStore;

async fn open() -> (MemoryStore, ()) {
    (MemoryStore::new(|| Timestamp::EPOCH), ())
}

job_tokio::conformance_tests!(open);
