//! `ottla cluster`.

mod describe;
mod elect;
mod moves;
mod targets;
mod throttle;
mod voters;

pub(super) use targets::{Target, chosen};

use clap::Subcommand;

use super::CommandResult;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show brokers, controller, quorum, the state of partitions, and features.
    Describe(describe::Arguments),
    /// List the brokers: where they are, whether they take part, and what they have.
    Brokers(describe::Arguments),
    /// Show the metadata quorum: who votes, and how far each node is; and change who votes.
    #[command(subcommand)]
    Voters(VotersCommand),
    /// Move partitions to other brokers, and wait until they are there.
    Reassign(moves::ReassignArguments),
    /// Move everything from a broker to the others, so that it can be stopped for good.
    Drain(moves::DrainArguments),
    /// Make the preferred replicas lead again.
    Elect(elect::ElectArguments),
    /// Forget a broker that has stopped and will not come back.
    Unregister(elect::UnregisterArguments),
}

#[derive(Debug, Subcommand)]
pub(super) enum VotersCommand {
    /// Show the voters and observers of the metadata quorum.
    Describe(describe::Arguments),
    /// Make a node that follows the metadata quorum a voter.
    Add(voters::AddArguments),
    /// Make a voter a node that only follows the metadata quorum.
    Remove(voters::RemoveArguments),
}

pub(super) async fn run(command: ClusterCommand) -> CommandResult {
    match command {
        ClusterCommand::Describe(arguments) => describe::cluster(&arguments).await,
        ClusterCommand::Brokers(arguments) => describe::brokers(&arguments).await,
        ClusterCommand::Voters(command) => match command {
            VotersCommand::Describe(arguments) => voters::describe(&arguments).await,
            VotersCommand::Add(arguments) => voters::add(&arguments).await,
            VotersCommand::Remove(arguments) => voters::remove(&arguments).await,
        },
        ClusterCommand::Reassign(arguments) => moves::reassign(&arguments).await,
        ClusterCommand::Drain(arguments) => moves::drain(&arguments).await,
        ClusterCommand::Elect(arguments) => elect::elect(&arguments).await,
        ClusterCommand::Unregister(arguments) => elect::unregister(&arguments).await,
    }
}
