//! Writes the chunks of responses to the socket, without copying them.
//!
//! Invariants:
//! - `WRITE-1` what was handed over is removed at once, so a write can be dropped and resumed.
//! - `WRITE-2` one call hands over at most [`BYTES_PER_CALL`], so that a slow peer is seen to make progress.
//!
//! Bytes stored in a file are sent with `sendfile`: the socket takes the pages of the page cache, where a
//! write would copy them. [`Stored`] guarantees that they are neither changed nor cut. For a few bytes a
//! copy costs less than a separate system call, so they go into a `writev` with their neighbours.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;

use crate::env::Transport;
use crate::types::{Chunk, Stored};

/// How many chunks go into one `writev`.
const CHUNKS_PER_WRITE: usize = 64;
/// How many bytes go to the socket in one call; measured best on loopback.
const BYTES_PER_CALL: usize = 1 << 20;
/// From this length on, `sendfile` costs less than a copy; at half of it, they cost the same. Measured on
/// loopback.
const SEND_FILE_MIN_BYTES: usize = 16 << 10;

/// Writes some of `out`, at least one byte of it if there is one. Cancel-safe (`WRITE-1`).
pub(super) async fn write_some(stream: &Transport, out: &mut VecDeque<Chunk>) -> io::Result<()> {
    let mut left = BYTES_PER_CALL;
    loop {
        while out.front().is_some_and(|chunk| chunk.is_empty()) {
            out.pop_front();
        }
        if out.is_empty() || left == 0 {
            return Ok(());
        }
        if left == BYTES_PER_CALL {
            stream.writable().await?;
        }
        match hand_over(stream, out, left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                left = left.saturating_sub(written);
                Chunk::take_off(out, written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if left < BYTES_PER_CALL {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if Transport::cannot_send_files(&error) && out.front().is_some_and(is_by_file) =>
            {
                out.front_mut().map(Chunk::forget_place);
            }
            Err(error) => return Err(error),
        }
    }
}

/// One system call: `sendfile` for the first chunk, or `writev` for all chunks up to one that is
/// sent so.
fn hand_over(stream: &Transport, out: &VecDeque<Chunk>, left: usize) -> io::Result<usize> {
    if let Some(chunk) = out.front()
        && let Some(stored) = by_file(chunk)
    {
        return stream.try_send_file(stored, chunk.len().min(left));
    }
    let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
    let (mut count, mut left) = (0, left);
    let mut more = false;
    for (slice, chunk) in slices.iter_mut().zip(out) {
        more = is_by_file(chunk);
        if more || left == 0 {
            break;
        }
        let part = chunk.get(..chunk.len().min(left)).unwrap_or_default();
        left -= part.len();
        *slice = IoSlice::new(part);
        count += 1;
    }
    stream.try_write(slices.get(..count).unwrap_or_default(), more)
}

/// Where a chunk is stored, if it is worth a system call.
fn by_file(chunk: &Chunk) -> Option<&Stored> {
    chunk.stored().filter(|_| chunk.len() >= SEND_FILE_MIN_BYTES)
}

fn is_by_file(chunk: &Chunk) -> bool {
    by_file(chunk).is_some()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Writes all chunks to a socket; returns what arrived at the other end.
    async fn through_a_socket(chunks: Vec<Chunk>) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reading = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let writing = Transport::from(listener.accept().await.unwrap().0);
        let writer = tokio::spawn(async move {
            let mut out = VecDeque::from(chunks);
            while !out.is_empty() {
                write_some(&writing, &mut out).await.unwrap();
            }
        });
        let mut received = Vec::new();
        reading.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        received
    }

    #[tokio::test]
    async fn chunks_of_files_and_of_memory_arrive_in_order() {
        let pattern: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern).unwrap();
        let file = Arc::new(file);
        let mut expected = Vec::new();
        let mut chunks = Vec::new();
        // Lengths on both sides of the limit, of a page and of one call; odd positions.
        for (position, length) in
            [(3, 16_383), (4095, 16_384), (1, 0), (12_345, 2_500_000), (4_983_616, 16_384)]
        {
            let bytes = &pattern[position..position + length];
            let stored = Stored { file: Arc::clone(&file), position: position as u64 };
            chunks.push(Bytes::from(format!("before {length}:")).into());
            chunks.push(Chunk::new(Bytes::copy_from_slice(bytes), Some(stored)));
            expected.extend_from_slice(format!("before {length}:").as_bytes());
            expected.extend_from_slice(bytes);
        }
        chunks.push(Bytes::from_static(b"end").into());
        expected.extend_from_slice(b"end");
        assert!(through_a_socket(chunks).await == expected);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_lies_in_a_file_is_sent_from_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 2 * SEND_FILE_MIN_BYTES]).unwrap();
        let stored = Stored { file: Arc::new(file), position: 5 };
        let zeros = |length| Chunk::new(Bytes::from(vec![0; length]), Some(stored.clone()));
        let received =
            through_a_socket(vec![zeros(SEND_FILE_MIN_BYTES), zeros(SEND_FILE_MIN_BYTES - 1)]);
        let received = received.await;
        let (from_file, copied) = received.split_at(SEND_FILE_MIN_BYTES);
        assert!(from_file.iter().all(|&byte| byte == 7), "with sendfile");
        assert!(copied.iter().all(|&byte| byte == 0), "too few: with a copy");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_no_socket_can_take_from_its_file_is_copied() {
        // `sendfile` refuses a directory just as it refuses a file of a file system without
        // splicing.
        let file = std::fs::File::open(std::env::temp_dir()).unwrap();
        let stored = Stored { file: Arc::new(file), position: 0 };
        let bytes = Bytes::from(vec![9; 3 * SEND_FILE_MIN_BYTES]);
        let received = through_a_socket(vec![Chunk::new(bytes.clone(), Some(stored))]).await;
        assert!(received == bytes);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_file_that_was_cut_is_an_error() {
        let stored = Stored { file: Arc::new(tempfile::tempfile().unwrap()), position: 0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _reading = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let writing = Transport::from(listener.accept().await.unwrap().0);
        let chunk = Chunk::new(Bytes::from(vec![0; SEND_FILE_MIN_BYTES]), Some(stored));
        let error = write_some(&writing, &mut VecDeque::from([chunk])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
