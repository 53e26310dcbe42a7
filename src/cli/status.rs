//! The exit statuses of the program: each has one meaning, whichever command ends with it.

use std::io;

use super::Failure;
use crate::error::{Error, ErrorCode};

/// What an exit status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Status {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Data = 3,
    Found = 4,
    Late = 5,
    Lost = 6,
}

/// The end of the help of the program. The manual has the same table.
pub(super) const HELP: &str = "\
Exit status:
  0  Done. Also after SIGINT or SIGTERM, for a command that runs until then, and when whoever reads the
     output has closed it
  1  Failed: the cluster refused it, something does not exist, or a file cannot be read or written
  2  The arguments, or a setting in them, are wrong
  3  Data do not have the format they are said to have: a line or row of the input, or a value of the
     topic. What came before it may be written
  4  Done, and what was checked is not in order (doctor, tier verify)
  5  Not in time: a broker or the schema registry could not be reached or did not answer, or the work is
     not finished yet
  6  Records that were asked for are not there any more";

impl Status {
    /// The status that a failure ends the program with.
    pub(super) fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Error(error) => Self::of_error(error),
            Failure::Usage(_) => Self::Usage,
            Failure::Data(_) => Self::Data,
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::Done,
            Failure::Output(_) | Failure::Told => Self::Failed,
            Failure::Found => Self::Found,
        }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::InvalidArgument(_) => Self::Usage,
            Error::Decode { .. } | Error::Row { .. } => Self::Data,
            Error::DataLoss { .. } | Error::OffsetOutOfRange { .. } => Self::Lost,
            Error::Timeout { .. } => Self::Late,
            // An address that cannot be bound is somebody else's, or nobody's.
            Error::Network { action, .. } if *action != "bind" => Self::Late,
            Error::Kafka { code, .. } => match code {
                ErrorCode::RequestTimedOut
                | ErrorCode::NetworkException
                | ErrorCode::BrokerNotAvailable => Self::Late,
                ErrorCode::OffsetOutOfRange => Self::Lost,
                _ => Self::Failed,
            },
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_manual_has_the_table_of_the_help() {
        let manual = include_str!("../manual/command_line.md");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let entries: Vec<&str> = HELP.lines().skip(1).collect();
        let mut joined: Vec<String> = Vec::new();
        for line in entries {
            match joined.last_mut() {
                Some(last) if line.starts_with("     ") => {
                    last.push(' ');
                    last.push_str(line);
                }
                _ => joined.push(line.to_owned()),
            }
        }
        assert_eq!(joined.len(), 7);
        for (status, entry) in joined.iter().enumerate() {
            let entry = words(entry);
            let meaning = entry.strip_prefix(&format!("{status} ")).unwrap();
            assert!(manual.contains(&format!("| {status} | {meaning} |")), "{status}: {meaning}");
        }
    }

    #[test]
    fn an_error_has_the_status_of_its_kind() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, status) in [
            (Error::invalid("x"), Status::Usage),
            (Error::Row { row: 1, detail: String::new() }, Status::Data),
            (Error::timeout("x", Duration::ZERO), Status::Late),
            (Error::network("connect to", "x", refused), Status::Late),
            (
                Error::network("bind", "x", io::Error::from(io::ErrorKind::AddrInUse)),
                Status::Failed,
            ),
            (Error::kafka(ErrorCode::PolicyViolation, "x"), Status::Failed),
            (Error::kafka(ErrorCode::OffsetOutOfRange, "x"), Status::Lost),
        ] {
            assert_eq!(Status::of(&error.into()), status);
        }
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Status::of(&Failure::Output(pipe)), Status::Done);
        assert_eq!(Status::of(&Failure::data(Error::invalid("x"))), Status::Data);
        let gone = Error::io("open", "x", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(Status::of(&Failure::data(gone)), Status::Failed);
    }
}
