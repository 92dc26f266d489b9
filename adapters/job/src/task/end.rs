//! How a task ended, told to a service that knows its backend.

use super::TaskEnd;
use crate::JobCompletion;
use crate::backend::{AnyTransaction, Backend, same_type};
use crate::completion::Within;
use crate::error::JobError;

impl TaskEnd {
    /// The same, of this backend.
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] if its transaction is one of another; it is rolled back.
    pub(super) fn on<B: Backend>(self) -> Result<JobCompletion<B>, JobError> {
        let (end, within) = match same_type(self) {
            // Of a service that does not know its backend either.
            Ok(same) => return Ok(same),
            Err(this) => this.apart(),
        };
        let transaction = match within {
            None => return Ok(JobCompletion::of(end, None)),
            Some(Within::Tx(transaction)) => transaction,
            #[cfg(feature = "es-entity")]
            Some(Within::Op(operation)) => operation,
        };
        let within = match transaction.made_of::<B, B::Transaction>() {
            Ok(transaction) => Within::Tx(transaction),
            Err(transaction) => operation(transaction)?,
        };
        Ok(JobCompletion::of(end, Some(within)))
    }
}

#[cfg(feature = "es-entity")]
fn operation<B: Backend>(operation: AnyTransaction) -> Result<Within<B>, JobError> {
    match operation.made_of::<B, B::Operation>() {
        Ok(operation) => Ok(Within::Op(operation)),
        Err(other) => Err(other.is_other_than::<B>()),
    }
}

#[cfg(not(feature = "es-entity"))]
fn operation<B: Backend>(operation: AnyTransaction) -> Result<Within<B>, JobError> {
    Err(operation.is_other_than::<B>())
}
