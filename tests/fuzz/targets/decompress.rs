//! Any bytes as any codec: an error, or no more than the limit; and whatever we compress comes
//! back.

use ottla::record::{Compression, compress, decompress};

const LIMIT: usize = 1 << 16;

pub(crate) fn run(input: &[u8]) {
    let Some((&codec, bytes)) = input.split_first() else { return };
    let codec = Compression::ALL[usize::from(codec) % Compression::ALL.len()];
    if let Ok(output) = decompress(codec, bytes, LIMIT) {
        assert!(output.len() <= LIMIT);
        assert!(output.capacity() <= 4 * LIMIT);
    }
    let mut packed = Vec::new();
    compress(codec, None, bytes, &mut packed).expect("any bytes can be compressed");
    assert_eq!(decompress(codec, &packed, bytes.len()).expect("our own bytes"), bytes);
}

/// Something repeated, by every codec.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let text = b"an event, and another event, and ".repeat(40);
    let pack = |(index, &codec): (u8, &Compression)| {
        let mut packed = vec![index];
        compress(codec, None, &text, &mut packed).expect("any bytes can be compressed");
        packed
    };
    (0_u8..).zip(Compression::ALL.iter()).map(pack).collect()
}
