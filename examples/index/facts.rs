//! What there is to know about a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Size, lines and hash of a file.
pub struct Facts {
    pub size: u64,
    pub lines: u64,
    pub sha256: String,
}

/// Reads a file. That it cannot be read is a fact, too.
pub fn read(path: &Path) -> Result<Facts, String> {
    read_file(path).map_err(|error| error.to_string())
}

fn read_file(path: &Path) -> io::Result<Facts> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let (mut size, mut lines) = (0, 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        let chunk = &buffer[..len];
        hasher.update(chunk);
        size += len as u64;
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    let sha256 = hasher
        .finalize()
        .into_iter()
        .map(|byte| format!("{byte:02x}"));
    Ok(Facts {
        size,
        lines,
        sha256: sha256.collect(),
    })
}
