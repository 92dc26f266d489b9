//! How a task ended, told to a service that knows its backend.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::TaskEnd;
use crate::JobCompletion;
use crate::backend::{AnyTransaction, Backend, same_type};
use crate::error::JobError;

/// When a job runs again that does.
enum Again {
    Never,
    Now,
    In(Duration),
    At(DateTime<Utc>),
}

impl TaskEnd {
    /// The same, of this backend.
    ///
    /// # Errors
    ///
    /// [`JobError::OtherBackend`] if its transaction is one of another; it is rolled back.
    pub(super) fn on<B: Backend>(self) -> Result<JobCompletion<B>, JobError> {
        let (again, transaction) = match same_type(self) {
            // Of a service that does not know its backend either.
            Ok(same) => return Ok(same),
            Err(this) => this.apart(),
        };
        let Some(transaction) = transaction else {
            return Ok(alone(again));
        };
        match transaction.made_of::<B, B::Transaction>() {
            Ok(transaction) => Ok(with_transaction(again, transaction)),
            Err(transaction) => with_operation(again, transaction),
        }
    }

    fn apart(self) -> (Again, Option<AnyTransaction>) {
        match self {
            Self::Complete => (Again::Never, None),
            Self::CompleteWithTx(tx) => (Again::Never, Some(tx)),
            Self::RescheduleNow => (Again::Now, None),
            Self::RescheduleNowWithTx(tx) => (Again::Now, Some(tx)),
            Self::RescheduleIn(delay) => (Again::In(delay), None),
            Self::RescheduleInWithTx(tx, delay) => (Again::In(delay), Some(tx)),
            Self::RescheduleAt(at) => (Again::At(at), None),
            Self::RescheduleAtWithTx(tx, at) => (Again::At(at), Some(tx)),
            #[cfg(feature = "es-entity")]
            Self::CompleteWithOp(op) => (Again::Never, Some(op)),
            #[cfg(feature = "es-entity")]
            Self::RescheduleNowWithOp(op) => (Again::Now, Some(op)),
            #[cfg(feature = "es-entity")]
            Self::RescheduleInWithOp(op, delay) => (Again::In(delay), Some(op)),
            #[cfg(feature = "es-entity")]
            Self::RescheduleAtWithOp(op, at) => (Again::At(at), Some(op)),
        }
    }
}

fn alone<B: Backend>(again: Again) -> JobCompletion<B> {
    match again {
        Again::Never => JobCompletion::Complete,
        Again::Now => JobCompletion::RescheduleNow,
        Again::In(delay) => JobCompletion::RescheduleIn(delay),
        Again::At(at) => JobCompletion::RescheduleAt(at),
    }
}

fn with_transaction<B: Backend>(again: Again, transaction: B::Transaction) -> JobCompletion<B> {
    match again {
        Again::Never => JobCompletion::CompleteWithTx(transaction),
        Again::Now => JobCompletion::RescheduleNowWithTx(transaction),
        Again::In(delay) => JobCompletion::RescheduleInWithTx(transaction, delay),
        Again::At(at) => JobCompletion::RescheduleAtWithTx(transaction, at),
    }
}

#[cfg(feature = "es-entity")]
fn with_operation<B: Backend>(
    again: Again,
    operation: AnyTransaction,
) -> Result<JobCompletion<B>, JobError> {
    let operation = operation
        .made_of::<B, B::Operation>()
        .map_err(|other| other.is_other_than::<B>())?;
    Ok(match again {
        Again::Never => JobCompletion::CompleteWithOp(operation),
        Again::Now => JobCompletion::RescheduleNowWithOp(operation),
        Again::In(delay) => JobCompletion::RescheduleInWithOp(operation, delay),
        Again::At(at) => JobCompletion::RescheduleAtWithOp(operation, at),
    })
}

#[cfg(not(feature = "es-entity"))]
fn with_operation<B: Backend>(
    _: Again,
    operation: AnyTransaction,
) -> Result<JobCompletion<B>, JobError> {
    Err(operation.is_other_than::<B>())
}
