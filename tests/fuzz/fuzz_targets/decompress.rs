//! Any bytes as any codec: an error, or no more than the limit; and what we compress comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla::record::{Compression, compress, decompress};

const LIMIT: usize = 1 << 16;

fuzz_target!(|input: (u8, &[u8])| {
    let (codec, bytes) = input;
    let codec = Compression::ALL[usize::from(codec) % Compression::ALL.len()];
    if let Ok(output) = decompress(codec, bytes, LIMIT) {
        assert!(output.len() <= LIMIT);
        assert!(output.capacity() <= 4 * LIMIT);
    }
    let mut packed = Vec::new();
    compress(codec, None, bytes, &mut packed).expect("any bytes can be compressed");
    assert_eq!(decompress(codec, &packed, bytes.len()).expect("our own bytes"), bytes);
});
