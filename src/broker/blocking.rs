//! Work that blocks, in a broker: a panic of it is an error, as in a handler (`BROKER-2`).

use crate::env::Threads;
use crate::error::{Error, ErrorCode, Result};

/// Does something that blocks, beside the tasks of the runtime.
///
/// # Errors
///
/// Those of the work; `UNKNOWN_SERVER_ERROR` when it panicked.
pub(super) async fn blocking<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    threads.spawn_blocking(work).await.unwrap_or_else(|error| {
        let context = format!("a task of the broker failed: {error}");
        Err(Error::kafka(ErrorCode::UnknownServerError, context))
    })
}
