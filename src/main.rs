//! The `ottla` program: the command line without Python.

fn main() {}
