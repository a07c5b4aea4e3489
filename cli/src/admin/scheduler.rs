//! `quorate scheduler list|pause|resume`: who moves load and repairs regions, and what each did last.

use serde_json::json;

use crate::cluster::find::Connection;
use crate::exit::Outcome;
use crate::output::{self, Table};

/// Schedulers and checkers of placement.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum SchedulerCommand {
    /// List them: what each did last, or why it does nothing
    List {
        #[command(flatten)]
        shape: output::Shape,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let one begin nothing new until it is resumed; what is under way goes on
    Pause {
        /// Its name, such as balance-region
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let it go on
    Resume {
        /// Its name
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or there is none of that name.
pub(crate) async fn scheduler(command: SchedulerCommand) -> Outcome {
    let (name, connection, paused) = match command {
        SchedulerCommand::List { shape, connection } => {
            let schedulers = connection.placement_client().await?.schedulers().await?;
            let mut table = Table::new(&["scheduler", "state", "operators", "last"]);
            for one in schedulers {
                let state = if one.paused { "paused" } else { "running" };
                table.push(vec![
                    json!(one.name),
                    json!(state),
                    json!(one.operators_begun),
                    json!(one.last),
                ]);
            }
            return output::emit(&table.render(shape.format()));
        }
        SchedulerCommand::Pause { name, connection } => (name, connection, true),
        SchedulerCommand::Resume { name, connection } => (name, connection, false),
    };
    connection.placement_client().await?.set_scheduler(&name, paused).await?;
    output::note(&format!("{name} {}", if paused { "is paused" } else { "goes on" }));
    Ok(())
}
