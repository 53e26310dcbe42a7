//! What consumers say inside of the classic protocol, as far as the coordinator must read it.
//!
//! The bytes come from clients: nothing is believed, and nothing is reserved that is not there.

/// The topics of an encoded subscription (any version of `ConsumerProtocolSubscription`: version,
/// topics, and more behind). `None` when it is something else.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let (version, mut rest) = take_i16(metadata)?;
    if version < 0 {
        return None;
    }
    let count;
    (count, rest) = take_i32(rest)?;
    let mut topics = Vec::new();
    for _ in 0..usize::try_from(count).ok()? {
        let length;
        (length, rest) = take_i16(rest)?;
        let (name, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        topics.push(str::from_utf8(name).ok()?);
        rest = behind;
    }
    Some(topics)
}

fn take_i16(bytes: &[u8]) -> Option<(i16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i16::from_be_bytes(*number), rest))
}

fn take_i32(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription_are_found_whatever_follows() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff more";
        assert_eq!(subscribed_topics(bytes), Some(vec!["a", "bc"]));
    }

    #[test]
    fn bytes_that_are_no_subscription_are_none() {
        for bytes in [&b""[..], b"\0", b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\x01\0\x09a"] {
            assert_eq!(subscribed_topics(bytes), None);
        }
        assert_eq!(subscribed_topics(b"\xff\xff\0\0\0\0"), None);
        assert_eq!(subscribed_topics(b"\0\0\xff\xff\xff\xff"), None);
    }
}
