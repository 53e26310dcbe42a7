//! Outputs that are made beside their decoder, on other threads.
//!
//! A [`Block`] is the assembled columns of one output. Made into rows it is what the decoder would have
//! given at that place; the caller keeps the blocks in order. Builders are kept from block to block, one
//! for each that is made at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use super::assemble::Assembled;
use super::decoder::{DecodeOptions, Decoded};
use super::output::{Made, Output};
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::registry::SchemaRequest;
use crate::error::{Error, Result};

/// Makes blocks into rows.
#[derive(Debug)]
pub(in crate::columnar) struct Makers {
    options: DecodeOptions,
    settled: ValueFormat,
    /// As [`Output::works`].
    works: bool,
    /// Those that nobody works with.
    idle: Mutex<Vec<Output>>,
}

impl Makers {
    pub(in crate::columnar) const fn new(
        options: DecodeOptions,
        settled: ValueFormat,
        works: bool,
    ) -> Self {
        Self { options, settled, works, idle: Mutex::new(Vec::new()) }
    }

    fn make(&self, assembled: &Assembled) -> Result<Made> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle().pop();
        let mut output = match known {
            Some(output) => output,
            None => Output::new(&self.options, &self.settled)?,
        };
        let made = output.make(assembled);
        idle().push(output);
        made
    }
}

/// What one output is made from.
#[derive(Debug)]
pub struct Block {
    assembled: Assembled,
    makers: Arc<Makers>,
}

/// What became of a block.
#[derive(Debug)]
pub enum BlockOutcome {
    /// An output, and the rest where it had no room for all: the next output is made from that.
    Output(Box<(Decoded, Option<Block>)>),
    /// A schema is needed first; then the block is made again.
    Schema(SchemaRequest, Block),
    /// A record does not decode, or the columns are damaged.
    Failed(Error),
}

impl Block {
    pub(in crate::columnar) const fn new(assembled: Assembled, makers: Arc<Makers>) -> Self {
        Self { assembled, makers }
    }

    /// The bytes of its values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.assembled.value_bytes()
    }

    /// Whether making it is work that another thread may do; otherwise it is made sooner than handed
    /// over.
    #[must_use]
    pub fn is_work(&self) -> bool {
        self.makers.works
    }

    /// Makes the rows.
    #[must_use]
    pub fn make(self) -> BlockOutcome {
        let Self { assembled, makers } = self;
        match makers.make(&assembled) {
            Ok(Made::Output(made)) => {
                let (decoded, rest) = *made;
                let rest = rest.map(|assembled| Self { assembled, makers });
                BlockOutcome::Output(Box::new((decoded, rest)))
            }
            Ok(Made::Schema(request)) => BlockOutcome::Schema(request, Self { assembled, makers }),
            Err(error) => BlockOutcome::Failed(error),
        }
    }
}
