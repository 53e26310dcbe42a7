//! Base64 (RFC 4648) for binary fields: written in the standard alphabet with padding, read in
//! the standard and the URL-safe one, with or without.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NOT_IN_ALPHABET: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut values = [NOT_IN_ALPHABET; 256];
    let mut index = 0;
    while index < 64 {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
};

pub(in crate::columnar) fn encode(bytes: &[u8], output: &mut Vec<u8>) {
    let digit = |bits: u32| ALPHABET[(bits & 63) as usize];
    for chunk in bytes.chunks(3) {
        let (bits, size) = match *chunk {
            [a, b, c] => (u32::from_be_bytes([0, a, b, c]), 3),
            [a, b] => (u32::from_be_bytes([0, a, b, 0]), 2),
            [a] => (u32::from_be_bytes([0, a, 0, 0]), 1),
            _ => continue,
        };
        output.push(digit(bits >> 18));
        output.push(digit(bits >> 12));
        output.push(if size > 1 { digit(bits >> 6) } else { b'=' });
        output.push(if size > 2 { digit(bits) } else { b'=' });
    }
}

pub(in crate::columnar) fn decode(text: &str, output: &mut Vec<u8>) -> Option<()> {
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() % 4 == 1 {
        return None;
    }
    for chunk in digits.chunks(4) {
        let mut bits = 0_u32;
        for &byte in chunk {
            let value = VALUES[byte as usize];
            if value == NOT_IN_ALPHABET {
                return None;
            }
            bits = (bits << 6) | u32::from(value);
        }
        match chunk.len() {
            4 => output.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => output.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            _ => output.push((bits >> 4) as u8),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_the_same_after_text_and_back() {
        for size in 0..20_u8 {
            let bytes: Vec<u8> = (0..size).map(|index| index.wrapping_mul(77)).collect();
            let mut text = Vec::new();
            super::encode(&bytes, &mut text);
            let text = String::from_utf8(text).unwrap();
            let mut back = Vec::new();
            super::decode(&text, &mut back).unwrap();
            assert_eq!(back, bytes);
            back.clear();
            super::decode(text.trim_end_matches('='), &mut back).unwrap();
            assert_eq!(back, bytes);
        }
        let mut text = Vec::new();
        super::encode(b"any carnal pleas", &mut text);
        assert_eq!(text, b"YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(super::decode("YW5?", &mut Vec::new()), None);
        assert_eq!(super::decode("YW55Y", &mut Vec::new()), None);
    }
}
