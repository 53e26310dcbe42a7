//! Commands and their replies as bytes: how they travel to the node whose controller leads, and back.
//!
//! One line of JSON each, as records of metadata are: nodes of one cluster are the only ones who read it, a person
//! can read a capture of it, and it follows the same rules. (Kafka wraps the request of the client, in its version,
//! in an Envelope. Here the handlers' quirks stop before the command is made, so the command itself travels; what is
//! asked by whom is checked where the client is connected. What brokers say of themselves travels in Kafka's frames
//! where both sides know them: `broker/quorum/frames/commands.rs`.)
//!
//! ```text
//! {"version":2,"command":{"delete_topics":{"topics":[{"name":"orders"}]}}}
//! {"version":2,"answer":{"committed":{"offset":17,"reply":{"delete_topics":[{"Ok":{"name":"orders","id":"…"}}]}}}}
//! ```
//!
//! - `WIRE-1` every command is in the table below: one that is not does not compile.
//! - `WIRE-2` `COMMAND_VERSION` is raised when an existing command or reply changes. A higher version is refused with both
//!   numbers; an unknown command, field or variant is refused by name. Nothing is guessed at.
//! - `WIRE-3` bytes are read up to [`COMMAND_BYTES_MAX`], whoever sent them, and never make a node panic.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::command::{
    AllocateProducerIds, AlterConfigs, AlterPartition, AlterPartitionReassignments, Bootstrap,
    BrokerHeartbeat, BrokerRegistration, BuryBroker, Command, CreatePartitions, CreateTopics,
    DeleteTopics, ElectLeaders, IncrementalAlterConfigs, Refusal, UnregisterBroker, UpdateFeatures,
};
use super::{Controller, Decision};
use crate::error::{Error, ErrorCode, Result};
use crate::types::Offset;

/// The version of the encoding that this build writes, and the highest that it reads: 2 added the predecessor to the
/// registration.
pub const COMMAND_VERSION: u16 = 2;

/// The longest command or answer. The largest that clients can ask for creates 10,000 partitions, whose assignments
/// take some 300 kB.
const COMMAND_BYTES_MAX: usize = 16 << 20;

macro_rules! commands {
    ($($command:ident,)*) => {
        /// A command of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum AnyCommand {
            $(
                #[doc = concat!("See [`", stringify!($command), "`].")]
                $command($command),
            )*
        }

        /// The reply to a command of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum AnyReply {
            $(
                #[doc = concat!("To [`", stringify!($command), "`].")]
                $command(<$command as Command>::Reply),
            )*
        }

        #[cfg(test)]
        const KINDS: usize = [$(stringify!($command)),*].len();

        impl AnyCommand {
            /// Has the controller decide; see [`Controller::decide`].
            pub fn decide(self, controller: &mut Controller, now: Duration) -> Decision<AnyReply> {
                match self {
                    $(Self::$command(command) => {
                        let Decision { records, reply } = controller.decide(now, command);
                        Decision { records, reply: AnyReply::$command(reply) }
                    })*
                }
            }
        }

        $(
            impl Travels for $command {
                fn pack(self) -> AnyCommand {
                    AnyCommand::$command(self)
                }

                fn unpack(reply: AnyReply) -> Option<<Self as Command>::Reply>
                where
                    Self: Command,
                {
                    match reply {
                        AnyReply::$command(reply) => Some(reply),
                        _ => None,
                    }
                }
            }
        )*
    };
}

commands! {
    Bootstrap,
    BrokerRegistration,
    BrokerHeartbeat,
    UnregisterBroker,
    BuryBroker,
    CreateTopics,
    DeleteTopics,
    CreatePartitions,
    AlterConfigs,
    IncrementalAlterConfigs,
    AlterPartition,
    ElectLeaders,
    AlterPartitionReassignments,
    UpdateFeatures,
    AllocateProducerIds,
}

/// What is in the table of commands.
pub trait Travels: Clone + fmt::Debug + Send + 'static {
    /// As one of all commands.
    fn pack(self) -> AnyCommand;

    /// The reply to this command; none if it is the reply to another.
    fn unpack(reply: AnyReply) -> Option<Self::Reply>
    where
        Self: Command;
}

/// What comes back from the node that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandAnswer {
    /// The controller has decided, and what it decided is committed.
    Committed {
        /// Whoever has applied the metadata log up to this offset sees what the reply says.
        offset: Offset,
        /// The reply.
        reply: AnyReply,
    },
    /// Nothing is known to have been done.
    Failed(Refusal),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandLine<T> {
    version: u16,
    command: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerLine<T> {
    version: u16,
    answer: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u16,
}

impl AnyCommand {
    /// The bytes of this command.
    ///
    /// # Errors
    ///
    /// INVALID_REQUEST when it is too large.
    pub fn encode(&self) -> Result<Vec<u8>> {
        write("command", &CommandLine { version: COMMAND_VERSION, command: self })
    }

    /// Reads a command.
    ///
    /// # Errors
    ///
    /// Bytes that are no command, or one that this build does not know; UNSUPPORTED_VERSION for a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read::<CommandLine<Self>>("command", bytes).map(|line| line.command)
    }
}

impl CommandAnswer {
    /// The bytes of this answer.
    ///
    /// # Errors
    ///
    /// INVALID_REQUEST when it is too large.
    pub fn encode(&self) -> Result<Vec<u8>> {
        write("answer to a command", &AnswerLine { version: COMMAND_VERSION, answer: self })
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// As [`AnyCommand::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        read::<AnswerLine<Self>>("answer to a command", bytes).map(|line| line.answer)
    }
}

fn write(what: &'static str, line: &impl Serialize) -> Result<Vec<u8>> {
    let bytes =
        serde_json::to_vec(line).map_err(|error| Error::malformed(what, error.to_string()))?;
    if bytes.len() > COMMAND_BYTES_MAX { Err(too_large(what, bytes.len())) } else { Ok(bytes) }
}

fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    if bytes.len() > COMMAND_BYTES_MAX {
        return Err(too_large(what, bytes.len()));
    }
    let malformed = |error: serde_json::Error| Error::malformed(what, error.to_string());
    let VersionOnly { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version == 0 {
        return Err(Error::malformed(what, "there is no version 0"));
    }
    if version > COMMAND_VERSION {
        let context = format!(
            "a {what} of version {version} came from a newer node; this one knows version {COMMAND_VERSION}"
        );
        return Err(Error::kafka(ErrorCode::UnsupportedVersion, context));
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

fn too_large(what: &str, length: usize) -> Error {
    let context = format!(
        "a {what} of {length} bytes is longer than {COMMAND_BYTES_MAX} bytes; ask for less at a time"
    );
    Error::kafka(ErrorCode::InvalidRequest, context)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
