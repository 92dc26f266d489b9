//! What is to happen, in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of tasks. Those of one time come in the order in which they were
/// put in.
///
/// The heap holds small keys, as it moves them about; the tasks stay where they
/// are.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<Key>>,
    tasks: Vec<Option<T>>,
    free: Vec<u32>,
    count: u64,
}

/// When, the how manieth, and where the task is, in one number: it is compared at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    /// Of a key, so many bits say where.
    const PLACE_BITS: u32 = 24;

    fn new(at_us: u64, count: u64, place: u32) -> Self {
        debug_assert!(count >> (64 - Self::PLACE_BITS) == 0 && place >> Self::PLACE_BITS == 0);
        let after = count << Self::PLACE_BITS | u64::from(place);
        Self(u128::from(at_us) << 64 | u128::from(after))
    }

    fn at_us(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn place(self) -> u32 {
        self.0 as u32 & ((1 << Self::PLACE_BITS) - 1)
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(256),
            tasks: Vec::with_capacity(256),
            free: Vec::new(),
            count: 0,
        }
    }

    pub(super) fn push(&mut self, at_us: u64, task: T) {
        self.count += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.tasks[place as usize] = Some(task);
                place
            }
            None => {
                self.tasks.push(Some(task));
                self.tasks.len() as u32 - 1
            }
        };
        self.heap.push(Reverse(Key::new(at_us, self.count, place)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse(key) = self.heap.pop()?;
        self.free.push(key.place());
        let task = self.tasks[key.place() as usize].take();
        Some((key.at_us(), task.expect("a key in the heap has its task")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_come_by_time_and_then_in_their_order() {
        let mut queue = Queue::new();
        for (at_us, task) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(at_us, task);
        }
        assert_eq!(queue.pop(), Some((1, 'a')));
        queue.push(2, 'x');
        let rest: String = std::iter::from_fn(|| queue.pop())
            .map(|(_, task)| task)
            .collect();
        assert_eq!(rest, "bxcd");
    }
}
