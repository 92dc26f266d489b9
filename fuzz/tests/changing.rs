//! New inputs, made of stored ones.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Changes that are made to one input at most.
const CHANGES_MAX: usize = 4;
/// Bytes beyond which an input does not grow.
const LEN_MAX: usize = 4_096;
/// Numbers at which something might change.
const EDGES: [u8; 8] = [0, 1, 3, 127, 128, 240, 254, 255];

/// One of the inputs, with a few changes.
pub(crate) fn change(rng: &mut ChaCha8Rng, inputs: &[&[u8]]) -> Vec<u8> {
    let mut data = inputs[below(rng, inputs.len())].to_vec();
    for _ in 0..=below(rng, CHANGES_MAX) {
        let at = below(rng, data.len() + 1);
        let len = below(rng, 16).min(data.len() - at);
        match below(rng, 7) {
            0 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << below(rng, 8);
                }
            }
            1 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = EDGES[below(rng, EDGES.len())];
                }
            }
            2 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = rng.next_u32() as u8;
                }
            }
            3 => data.insert(at, rng.next_u32() as u8),
            4 => drop(data.drain(at..at + len)),
            // The same once more.
            5 => {
                let again = data[at..at + len].to_vec();
                data.splice(at..at, again);
            }
            // On with another input.
            _ => {
                let other = inputs[below(rng, inputs.len())];
                data.truncate(at);
                data.extend_from_slice(&other[below(rng, other.len() + 1)..]);
            }
        }
    }
    data.truncate(LEN_MAX);
    data
}

fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    (rng.next_u64() % limit as u64) as usize
}
