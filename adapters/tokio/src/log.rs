//! What tests read of what is logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt;

/// The lines that this thread logs for as long as it is there, with their levels and spans.
pub(crate) struct Log {
    bytes: Bytes,
    _while: DefaultGuard,
}

#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn begin() -> Self {
        let bytes = Bytes::default();
        let writer = bytes.clone();
        let subscriber = fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::TRACE)
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .finish();
        let _while = tracing::subscriber::set_default(subscriber);
        Self { bytes, _while }
    }

    /// The lines since the last call.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.bytes.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}
