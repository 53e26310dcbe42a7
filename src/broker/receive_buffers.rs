//! Reusable buffers for requests.
//!
//! Why: a fresh buffer of a megabyte costs a page fault for every four kilobytes that the socket writes
//! into it, which is more than everything done with a large Produce afterwards. A reused buffer costs
//! nothing.
//!
//! Invariants:
//! - `BUFFERS-1` at most [`KEPT_BYTES_MAX`] are kept for reuse, and what was not needed between two
//!   calls of [`ReceiveBuffers::sweep`] is freed.
//! - `BUFFERS-2` a buffer is either here or in one [`ReceiveBuffer`], which returns it when the last slice
//!   of the request is dropped.
//! - `BUFFERS-3` at most [`KEPT_BYTES_MAX`] are lent to requests that were announced and have not
//!   fully arrived: many clients that send four bytes each do not take a buffer each.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Requests up to this size get a fresh buffer of their own length, which `malloc` provides
/// cheaply.
pub(super) const SMALL: usize = 16 << 10;
/// The smallest buffer that is kept; each class is twice the size of the previous one.
const KEPT_MIN: usize = 2 * SMALL;
/// How many size classes are kept: up to 4 MiB.
const CLASSES: usize = 8;
/// The most bytes kept for reuse, and the most bytes lent.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// See the module. Clones share the buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceiveBuffers {
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    classes: [Class; CLASSES],
    /// How many bytes are kept here.
    bytes: usize,
    /// How many bytes are lent to incomplete requests.
    lent: usize,
}

/// The buffers of one size class.
#[derive(Debug, Default)]
struct Class {
    free: Vec<Vec<u8>>,
    /// How many were free all the time since the last sweep.
    unneeded: usize,
}

/// The bytes of one request as they arrive.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    bytes: Vec<u8>,
    /// How many bytes count as lent to it.
    lent: usize,
    home: ReceiveBuffers,
}

impl ReceiveBuffers {
    /// A buffer for an announced request of `length` bytes: a reused one, or one without capacity.
    pub(super) fn take(&self, length: usize) -> ReceiveBuffer {
        let bytes = match class_of(size_for(length)) {
            Some(class) => self.shelf().lend(class),
            None => Vec::new(),
        };
        ReceiveBuffer { lent: bytes.capacity(), bytes, home: self.clone() }
    }

    /// Frees what was not needed since the previous call.
    pub(super) fn sweep(&self) {
        let unneeded = self.shelf().unneeded();
        drop(unneeded);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn lend(&mut self, class: usize) -> Vec<u8> {
        let size = KEPT_MIN << class;
        let Some(class) = self.classes.get_mut(class) else { return Vec::new() };
        if self.lent + size > KEPT_BYTES_MAX {
            return Vec::new();
        }
        let bytes = class.free.pop().unwrap_or_default();
        class.unneeded = class.unneeded.min(class.free.len());
        self.bytes -= bytes.capacity();
        self.lent += bytes.capacity();
        bytes
    }

    fn give_back(&mut self, mut bytes: Vec<u8>) {
        let Some(class) = class_of(bytes.capacity()) else { return };
        if self.bytes + bytes.capacity() <= KEPT_BYTES_MAX
            && let Some(class) = self.classes.get_mut(class)
        {
            self.bytes += bytes.capacity();
            bytes.clear();
            class.free.push(bytes);
        }
    }

    fn unneeded(&mut self) -> Vec<Vec<u8>> {
        let mut unneeded = Vec::new();
        for class in &mut self.classes {
            unneeded.extend(class.free.drain(..class.unneeded));
            class.unneeded = class.free.len();
        }
        self.bytes -= unneeded.iter().map(Vec::capacity).sum::<usize>();
        unneeded
    }
}

impl ReceiveBuffer {
    /// How many bytes have arrived.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes it has memory for.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes the capacity at least `capacity`.
    pub(super) fn grow_to(&mut self, capacity: usize) {
        self.bytes.reserve_exact(capacity.saturating_sub(self.bytes.len()));
    }

    /// The buffer to read into; writes stay within the capacity.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The complete request.
    pub(super) fn freeze(mut self) -> Bytes {
        self.is_no_longer_lent();
        if class_of(self.capacity()).is_some() {
            Bytes::from_owner(self)
        } else {
            Bytes::from(mem::take(&mut self.bytes))
        }
    }

    fn is_no_longer_lent(&mut self) {
        if self.lent > 0 {
            self.home.shelf().lent -= mem::take(&mut self.lent);
        }
    }
}

impl AsRef<[u8]> for ReceiveBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        self.is_no_longer_lent();
        let bytes = mem::take(&mut self.bytes);
        if class_of(bytes.capacity()).is_some() {
            self.home.shelf().give_back(bytes);
        }
    }
}

/// The capacity that a request of `length` bytes ends up with.
pub(super) fn size_for(length: usize) -> usize {
    let size = length.checked_next_power_of_two().unwrap_or(length).max(KEPT_MIN);
    if length > SMALL && class_of(size).is_some() { size } else { length }
}

/// The class of a size, if it is kept.
fn class_of(size: usize) -> Option<usize> {
    (0..CLASSES).find(|class| size == KEPT_MIN << class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(buffers: &ReceiveBuffers, length: usize) -> Bytes {
        let mut buffer = buffers.take(length);
        buffer.grow_to(size_for(length));
        buffer.bytes_mut().resize(length, 1);
        buffer.freeze()
    }

    fn kept(buffers: &ReceiveBuffers) -> usize {
        buffers.shelf().bytes
    }

    #[test]
    fn a_buffer_is_used_again_when_the_last_slice_is_dropped() {
        let buffers = ReceiveBuffers::default();
        let first = received(&buffers, 1_000_000);
        let (place, slice) = (first.as_ptr(), first.slice(5..6));
        drop(first);
        assert_eq!(kept(&buffers), 0, "a slice is still read");
        drop(slice);
        assert_eq!(kept(&buffers), 1 << 20);
        let again = received(&buffers, 900_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 900_000));
        assert_eq!(kept(&buffers), 0);
    }

    #[test]
    fn small_and_huge_ones_are_not_kept_and_the_others_up_to_a_bound() {
        let buffers = ReceiveBuffers::default();
        drop((received(&buffers, 100), received(&buffers, SMALL), received(&buffers, 5 << 20)));
        assert_eq!(kept(&buffers), 0);
        let many: Vec<Bytes> = (0..20).map(|_| received(&buffers, 1 << 20)).collect();
        drop(many);
        assert_eq!(kept(&buffers), KEPT_BYTES_MAX);
    }

    #[test]
    fn what_is_not_needed_between_two_sweeps_is_freed() {
        let buffers = ReceiveBuffers::default();
        drop((received(&buffers, 1 << 20), received(&buffers, 1 << 20)));
        buffers.sweep();
        assert_eq!(kept(&buffers), 2 << 20, "they came back after the last sweep");
        drop(received(&buffers, 1 << 20));
        buffers.sweep();
        assert_eq!(kept(&buffers), 1 << 20, "one of them was needed");
        buffers.sweep();
        assert_eq!(kept(&buffers), 0);
    }

    #[test]
    fn what_is_lent_to_requests_that_do_not_come_is_bounded() {
        let buffers = ReceiveBuffers::default();
        let announced: Vec<ReceiveBuffer> = (0..100)
            .map(|_| {
                drop(received(&buffers, 1 << 20));
                buffers.take(1 << 20)
            })
            .collect();
        let lent: usize = announced.iter().map(ReceiveBuffer::capacity).sum();
        assert_eq!(lent, KEPT_BYTES_MAX);
        drop(announced);
        let whole = buffers.take(1 << 20).freeze();
        assert_eq!(kept(&buffers), KEPT_BYTES_MAX - (1 << 20));
        assert_eq!(buffers.shelf().lent, 0);
        drop(whole);
    }
}
