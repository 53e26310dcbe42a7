//! Decoding in async code: what a decoder waits for is fetched on a thread for blocking work.

use crate::columnar::{Decoded, Decoder, Step};
use crate::error::{Error, Result};

/// The next output of a decoder, as [`Decoder::next`]; schemas that it needs are loaded without
/// blocking the caller's thread.
///
/// Cancel-safe: the decoder keeps what it waits with, and a schema that was loaded stays known.
///
/// # Errors
///
/// As [`Decoder::step`], or the registry did not answer.
pub(crate) async fn next(decoder: &mut Decoder, finish: bool) -> Result<Option<Decoded>> {
    loop {
        match decoder.step(finish)? {
            Step::Output(decoded) => return Ok(Some(decoded)),
            Step::Input => return Ok(None),
            Step::Schema(request) => {
                let Some(source) = decoder.source() else {
                    return Err(Error::invalid(format!("there is no registry for {request:?}")));
                };
                tokio::task::spawn_blocking(move || source.load(&request)).await.map_err(
                    |error| Error::invalid(format!("loading a schema failed: {error}")),
                )??;
            }
        }
    }
}
