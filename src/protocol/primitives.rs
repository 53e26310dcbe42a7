//! The primitive types of the wire, and the two cursors that read and write everything.
//!
//! [`Decoder`] hands out slices of the received frame and never trusts a length; [`Encoder`] writes
//! small values into one buffer and remembers where large ones are to be spliced in.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod decoder;
mod encoder;
mod records;
mod text;
mod wire;

pub use decoder::{BUDGET_BASE_BYTES, BUDGET_FACTOR, Decoder};
pub use encoder::{Encoder, SPLICE_MIN_BYTES};
pub use records::Records;
pub use text::Str;

pub(crate) use wire::{read_nullable_structure, write_nullable_structure};

/// The longest string, in bytes, of the protocol.
pub const STRING_MAX_BYTES: usize = i16::MAX as usize;

#[cfg(test)]
mod tests;
