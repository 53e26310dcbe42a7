//! Regular expressions that clients send, for whole names: of topics, of transactional ids.
//!
//! The syntax is that of the `regex` crate, which is RE2's for everything such names need. Matching takes time linear in
//! the name: no expression can hold up a coordinator.

use regex::{Error, Regex, RegexBuilder};

/// The longest expression; names are much shorter.
pub(super) const PATTERN_BYTES_MAX: usize = 16 * 1024;
/// The most bytes that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Compiles an expression that matches whole names.
///
/// # Errors
///
/// It is no expression, or takes too much memory.
pub(super) fn compile_whole(text: &str) -> Result<Regex, Error> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build()
    };
    // On its own first: text that is not an expression by itself may become one inside the brackets.
    build(text)?;
    build(&format!(r"\A(?:{text})\z"))
}
