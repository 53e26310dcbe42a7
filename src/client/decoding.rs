//! Decoding in async code: what a decoder waits for is fetched on a thread for blocking work.

use crate::columnar::{Decoded, Decoder, Looked, SchemaRequest, Step, ValueFormat};
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
            Step::Schema(request) => load(decoder, request).await?,
        }
    }
}

/// The format of values with its columns, as [`Decoder::look`]; none where more chunks are needed.
///
/// # Errors
///
/// As [`Decoder::look`], or the registry did not answer.
pub(crate) async fn look(decoder: &mut Decoder, finish: bool) -> Result<Option<ValueFormat>> {
    loop {
        match decoder.look(finish)? {
            Looked::Done(format) => return Ok(Some(format)),
            Looked::Input => return Ok(None),
            Looked::Schema(request) => load(decoder, request).await?,
        }
    }
}

async fn load(decoder: &Decoder, request: SchemaRequest) -> Result<()> {
    let Some(source) = decoder.source() else {
        return Err(Error::invalid(format!("there is no registry for {request:?}")));
    };
    tokio::task::spawn_blocking(move || source.load(&request))
        .await
        .map_err(|error| Error::invalid(format!("loading a schema failed: {error}")))?
}
