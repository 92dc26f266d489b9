//! It passes the suite that every store passes.

mod on_a_file {
    use crate::fixtures::on_file;

    job_tokio::conformance_tests!(on_file);
}

mod in_memory {
    use crate::fixtures::in_memory;

    job_tokio::conformance_tests!(in_memory);
}
