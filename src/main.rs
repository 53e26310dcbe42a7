//! The `ottla` program: the command line without Python.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = ottla::cli::run(std::env::args_os());
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
