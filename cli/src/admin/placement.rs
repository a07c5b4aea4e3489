//! `quorate placement transfer-leader`: another member leads placement.

use crate::cluster::find::Connection;
use crate::exit::Outcome;
use crate::output;

/// Lets another member lead placement.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TransferArgs {
    /// The member that shall lead [default: any other]
    member: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or that member cannot lead.
pub(crate) async fn transfer_leader(args: &TransferArgs) -> Outcome {
    let placement = args.connection.placement_client().await?;
    let leader = placement.transfer_placement_leader(args.member.unwrap_or(0)).await?;
    output::note(&format!("placement/{leader} leads"));
    Ok(())
}
