//! The tables of an application, as far as its tests need any.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::paused::backend::SimulatedTransaction;

/// A table of the application in a simulation: rows that are only ever added. Clones are
/// one table.
#[derive(Debug)]
pub struct SimulatedTable<T> {
    rows: Arc<Mutex<Vec<T>>>,
}

impl<T: Clone + Send + 'static> SimulatedTable<T> {
    /// Adds a row with the commit of a transaction.
    pub fn insert_in(&self, transaction: &mut SimulatedTransaction, row: T) {
        let table = self.clone();
        transaction.write(move || table.insert(row));
    }

    /// Adds a row at once.
    pub fn insert(&self, row: T) {
        self.locked().push(row);
    }

    /// Adds a row at once, unless there is one like it.
    pub fn insert_or_ignore(&self, row: T)
    where
        T: PartialEq,
    {
        let mut rows = self.locked();
        if !rows.contains(&row) {
            rows.push(row);
        }
    }

    /// All rows, in the order of their commits.
    pub fn rows(&self) -> Vec<T> {
        self.locked().clone()
    }

    /// Those of which this is true.
    pub fn rows_where(&self, mut is_wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let rows = self.locked();
        let wanted = rows.iter().filter(|row| is_wanted(row));
        wanted.cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<T>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for SimulatedTable<T> {
    fn clone(&self) -> Self {
        let rows = Arc::clone(&self.rows);
        Self { rows }
    }
}

impl<T> Default for SimulatedTable<T> {
    fn default() -> Self {
        let rows = Arc::default();
        Self { rows }
    }
}
