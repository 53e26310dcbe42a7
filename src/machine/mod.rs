//! Every decision, without I/O.

pub mod fetch_session;
pub mod purgatory;
pub mod replica;
