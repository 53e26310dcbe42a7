//! `ottla completion`: the script by which a shell completes the program's commands and options.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::CommandResult;

#[derive(Debug, Args)]
pub(super) struct CompletionArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script for the commands of `Program`.
pub(super) fn run<Program: CommandFactory>(arguments: &CompletionArguments) -> CommandResult {
    let mut command = Program::command();
    let name = command.get_name().to_owned();
    // The generator does not take an error of its output: it gets a buffer.
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, name, &mut script);
    Ok(io::stdout().write_all(&script)?)
}
