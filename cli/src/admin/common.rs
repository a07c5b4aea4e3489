//! What most of these commands take.

use crate::cluster::find::Connection;
use crate::output;

/// How it is shown, and whom it asks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(super) shape: output::Shape,
    #[command(flatten)]
    pub(super) connection: Connection,
}
