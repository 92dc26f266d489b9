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

/// When, the how manieth, and where the task is.
type Key = (u64, u64, u32);

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
        let slot = match self.free.pop() {
            Some(slot) => {
                self.tasks[slot as usize] = Some(task);
                slot
            }
            None => {
                self.tasks.push(Some(task));
                self.tasks.len() as u32 - 1
            }
        };
        self.heap.push(Reverse((at_us, self.count, slot)));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_us, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let task = self.tasks[slot as usize].take();
        Some((at_us, task.expect("a key in the heap has its task")))
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
