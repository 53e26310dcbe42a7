//! Every decision, without I/O.
