//! The known name nearest to an unknown one.

/// The name most similar to `given`, when it is near enough to be what was meant.
///
/// Near is an edit distance of at most a quarter of the name (at least two), or one name containing
/// the other (`retention` for `retention.ms`).
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = given.to_ascii_lowercase().replace(['_', '-'], ".");
    let mut best: Option<(usize, &'a str)> = None;
    for name in known {
        let mut distance = edit_distance(&plain, name);
        let limit = (name.len() / 4).max(2);
        if plain.len() >= 4 && (name.contains(&plain) || plain.contains(name)) {
            distance = distance.min(limit);
        }
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time; both texts are short names.
fn edit_distance(left: &str, right: &str) -> usize {
    /// Longer names are not worth a suggestion.
    const LENGTH_MAX: usize = 256;
    if left.len() > LENGTH_MAX {
        return usize::MAX;
    }
    let right: Vec<u8> = right.bytes().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, left_byte) in left.bytes().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        for (cell, &right_byte) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(left_byte != right_byte);
            diagonal = *cell;
            *cell = replaced.min(*cell + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
