//! Decoding in async code, on several threads, in order and within bounds.
//!
//! ```text
//! chunks ──► Decoder: batches, records ──► blocks ──► made in the pool ──► slots, in order ──► rows
//!                   ▲ decompressed ahead, in the pool
//! ```
//!
//! The caller's thread walks the records and cuts them into blocks, which are the outputs before their
//! values are decoded; decompressing batches and decoding blocks is work for the [`WorkerPool`]. Each block has
//! a slot, and slots are taken in their order, errors included: what comes out is what one thread gives.
//!
//! With one thread there is no pool, and the caller's thread does it all. While the columns of values are
//! being found it does so, too, since what follows depends on it; and so it does with a block whose columns
//! are there already, as those of raw values, or that is the only one and small: to hand it over would take
//! longer than to make it.
//!
//! Invariants:
//!
//! - **DP-1** Outputs, their order and their errors do not depend on the number of threads.
//! - **DP-2** At most `SLOTS_PER_THREAD` blocks for each thread and one more are in slots, or fewer if
//!   their values have more bytes than the caller's memory limit; at least one. At most
//!   `UNPACKED_PER_THREAD` bytes or so for each thread are decompressed ahead; at least one batch.
//! - **DP-3** Cancel-safe: a future that is dropped leaves everything in its place.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use arrow::datatypes::SchemaRef;

use crate::client::worker_pool::{self, Promise, WorkerPool};
use crate::columnar::{
    Block, BlockOutcome, DecodeOptions, Decoded, Decoder, FetchedBytes, Looked, SchemaRequest,
    Step, Taken, ValueFormat,
};
use crate::env::Threads;
use crate::error::{Error, Result};

/// One that is worked on, and one that is done or waits.
const SLOTS_PER_THREAD: usize = 2;
/// So many bytes may be decompressed ahead of their turn for each thread: enough for the next batches, and
/// few enough to be in a cache still when their turn comes.
const UNPACKED_PER_THREAD: usize = 2 << 20;
/// A block with fewer bytes of values is made at once where it is the only one.
const SMALL_BYTES: usize = 64 << 10;

/// What became of a block, once it is there.
#[derive(Debug)]
struct Slot {
    bytes: usize,
    outcome: Promise<BlockOutcome>,
}

/// What a turn came to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The next output.
    Output(Box<Decoded>),
    /// Nothing is being worked on; more chunks are needed.
    Input,
    /// Outputs are being made ([`Pipeline::wait`]), and there is room for more chunks.
    Room,
    /// Outputs are being made.
    Busy,
}

/// A decoder with a pool.
#[derive(Debug)]
pub(crate) struct Pipeline {
    env: Threads,
    decoder: Decoder,
    pool: Option<WorkerPool>,
    threads: NonZeroUsize,
    slots: VecDeque<Slot>,
    /// The bytes that blocks in slots may have.
    bytes_max: usize,
}

impl Pipeline {
    /// A pipeline for `options`, whose `threads` count, with a limit of bytes in blocks.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub(crate) fn new(env: &Threads, options: DecodeOptions, bytes_max: usize) -> Result<Self> {
        let threads = worker_pool::threads(env, options.threads);
        let (decoder, pool) = (Decoder::new(options)?, WorkerPool::new(env, threads));
        let env = env.clone();
        Ok(Self { env, decoder, pool, threads, slots: VecDeque::new(), bytes_max })
    }

    /// Forgets all that was pushed, but not the columns of values that were found: what is read again
    /// has the same columns, or the same errors.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.decoder = self.decoder.emptied()?;
        self.slots.clear();
        // Jobs that have not begun are dropped with the old pool.
        self.pool = WorkerPool::new(&self.env, self.threads);
        Ok(())
    }

    /// As [`Decoder::push`].
    pub(crate) fn push(&mut self, chunk: FetchedBytes) {
        self.decoder.push(chunk);
    }

    /// As [`Decoder::schema`].
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    /// Waits until a turn may come to something else.
    pub(crate) async fn wait(&self) {
        if let Some(pool) = &self.pool {
            pool.wait().await;
        }
    }

    /// The next output, as far as it can be had without waiting for the pool. With `finish` also one that
    /// is not full, from what is there: for a pipeline that is idle, or gets no more chunks.
    ///
    /// # Errors
    /// As [`Decoder::step`], or the registry did not answer.
    pub(crate) async fn turn(&mut self, finish: bool) -> Result<Turn> {
        loop {
            let filled = self.fill(finish);
            let Some(front) = self.slots.front() else {
                if matches!(filled, Filled::Alone) {
                    let next = next(&self.env, &mut self.decoder, finish).await?;
                    return Ok(next.map_or(Turn::Input, |decoded| Turn::Output(Box::new(decoded))));
                }
                return Ok(match filled {
                    Filled::Busy => Turn::Busy,
                    Filled::Blocked => Turn::Room,
                    Filled::Input | Filled::Alone => Turn::Input,
                });
            };
            let needed = match &*front.outcome.result() {
                // It stays in its slot until the schema is known.
                Some(BlockOutcome::Schema(request, _)) => Some(request.clone()),
                _ => None,
            };
            if let Some(request) = needed {
                load(&self.env, &self.decoder, request).await?;
            }
            let outcome = front.outcome.result().take();
            match outcome {
                Some(BlockOutcome::Output(made)) => {
                    let (decoded, rest) = *made;
                    self.slots.pop_front();
                    if let Some(rest) = rest {
                        let slot = self.make(rest);
                        self.slots.push_front(slot);
                    }
                    return Ok(Turn::Output(Box::new(decoded)));
                }
                Some(BlockOutcome::Schema(_, block)) => {
                    self.slots.pop_front();
                    let slot = self.make(block);
                    self.slots.push_front(slot);
                }
                Some(BlockOutcome::Failed(error)) => {
                    self.slots.pop_front();
                    return Err(error);
                }
                None if front.outcome.is_abandoned() => {
                    self.slots.pop_front();
                    return Err(Error::invalid("decoding failed: its thread panicked"));
                }
                None if matches!(filled, Filled::Input | Filled::Blocked) => return Ok(Turn::Room),
                None => return Ok(Turn::Busy),
            }
        }
    }

    /// Hands in what can be worked on.
    fn fill(&mut self, finish: bool) -> Filled {
        let Some(pool) = &self.pool else { return Filled::Alone };
        let slots_max = pool.threads().saturating_mul(SLOTS_PER_THREAD).saturating_add(1);
        loop {
            self.unpack_ahead();
            let bytes: usize = self.slots.iter().map(|slot| slot.bytes).sum();
            let fails = self.slots.back().is_some_and(|slot| {
                matches!(&*slot.outcome.result(), Some(BlockOutcome::Failed(_)))
            });
            if fails || self.slots.len() >= slots_max || bytes > self.bytes_max {
                return Filled::Busy;
            }
            match self.decoder.take(finish) {
                Ok(Taken::Block(block)) => {
                    let is_work = block.is_work();
                    let slot = self.make(block);
                    self.slots.push_back(slot);
                    // Nothing is gained by making more of them before they are asked for.
                    if !is_work {
                        return Filled::Busy;
                    }
                }
                Ok(Taken::Input) => return Filled::Input,
                Ok(Taken::Blocked) if self.decoder.wants_to_unpack() => return Filled::Blocked,
                Ok(Taken::Blocked) => return Filled::Busy,
                Ok(Taken::Unsettled) => return Filled::Alone,
                Err(error) => {
                    let outcome = Promise::kept(BlockOutcome::Failed(error));
                    self.slots.push_back(Slot { bytes: 0, outcome });
                }
            }
        }
    }

    /// Hands in batches to decompress.
    fn unpack_ahead(&mut self) {
        let Some(pool) = &self.pool else { return };
        let most = UNPACKED_PER_THREAD.saturating_mul(pool.threads());
        while pool.waiting() < pool.threads() && self.decoder.unpacked_bytes() < most {
            let Some(unpack) = self.decoder.unpack() else { return };
            pool.submit(move || unpack.run());
        }
    }

    /// Has a block made, and says where it will be found.
    fn make(&self, block: Block) -> Slot {
        let bytes = block.bytes();
        let outcome = match &self.pool {
            Some(pool) if block.is_work() && (!self.slots.is_empty() || bytes >= SMALL_BYTES) => {
                pool.promise(move || block.make())
            }
            _ => Promise::kept(block.make()),
        };
        Slot { bytes, outcome }
    }

    /// The format of values with its columns, as [`Decoder::look`]; none where more chunks are needed.
    ///
    /// # Errors
    /// As [`Decoder::look`], or the registry did not answer.
    pub(crate) async fn look(&mut self, finish: bool) -> Result<Option<ValueFormat>> {
        loop {
            match self.decoder.look(finish)? {
                Looked::Done(format) => return Ok(Some(format)),
                Looked::Input => return Ok(None),
                Looked::Schema(request) => load(&self.env, &self.decoder, request).await?,
            }
        }
    }
}

/// What handing in came to.
enum Filled {
    /// More chunks are needed.
    Input,
    /// A batch is being decompressed that is needed next; more chunks are welcome.
    Blocked,
    /// There is enough to do.
    Busy,
    /// The caller's thread does it all.
    Alone,
}

/// The next output of a decoder, as [`Decoder::next`]; schemas that it needs are loaded without
/// blocking the caller's thread.
///
/// Cancel-safe: the decoder keeps what it waits with, and a schema that was loaded stays known.
///
/// # Errors
/// As [`Decoder::step`], or the registry did not answer.
async fn next(env: &Threads, decoder: &mut Decoder, finish: bool) -> Result<Option<Decoded>> {
    loop {
        match decoder.step(finish)? {
            Step::Output(decoded) => return Ok(Some(decoded)),
            Step::Input => return Ok(None),
            Step::Schema(request) => load(env, decoder, request).await?,
        }
    }
}

async fn load(env: &Threads, decoder: &Decoder, request: SchemaRequest) -> Result<()> {
    let Some(source) = decoder.source() else {
        return Err(Error::invalid(format!("there is no registry for {request:?}")));
    };
    env.spawn_interruptible(move || source.load(&request))
        .await
        .map_err(|error| Error::invalid(format!("loading a schema failed: {error}")))?
}

#[cfg(test)]
mod tests;
