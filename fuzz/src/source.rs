//! The bytes of an input, read from front to back.
//!
//! Every choice takes the next bytes, and a target ends when there are none left:
//! so a fuzzer that inserts, removes or repeats bytes inserts, removes or repeats
//! what happens. After the end there are only zeros.

/// What is left of an input.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    pub(crate) fn bytes<const LEN: usize>(&mut self) -> [u8; LEN] {
        std::array::from_fn(|_| self.byte())
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `limit`, which is 1 to 256.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// One of these; there is at least one.
    pub(crate) fn pick<'b, T>(&mut self, among: &'b [T]) -> &'b T {
        &among[self.below(among.len())]
    }

    /// Something, or nothing.
    pub(crate) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    /// Fewer than `limit` things.
    pub(crate) fn several<T>(
        &mut self,
        limit: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..self.below(limit)).map(|_| make(self)).collect()
    }

    /// A number: often small, often at an edge.
    pub(crate) fn u64(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => small.into(),
            power @ 128..=191 => 1 << (power - 128),
            power @ 192..=223 => (1 << (2 * (power - 192))) - 1,
            224..=231 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_be_bytes(self.bytes()),
        }
    }

    /// Like [`Source::u64`]; what does not fit is the largest number.
    pub(crate) fn u32(&mut self) -> u32 {
        self.u64().try_into().unwrap_or(u32::MAX)
    }
}
