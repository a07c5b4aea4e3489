//! What an operator asks: is it healthy, where is what, why, and requests to change it.

mod common;
pub(crate) mod events;
pub(crate) mod health;
mod id;
mod member;
mod operator;
mod placement;
mod region;
mod scheduler;
mod settings;
mod status;
mod store;

pub(crate) use events::{EventsArgs, events};
pub(crate) use member::{MemberCommand, member};
pub(crate) use operator::{OperatorCommand, operator};
pub(crate) use placement::{TransferArgs, transfer_leader};
pub(crate) use region::{RegionCommand, region};
pub(crate) use scheduler::{SchedulerCommand, scheduler};
pub(crate) use settings::{SettingsCommand, settings};
pub(crate) use status::{StatusArgs, status};
pub(crate) use store::{ListArgs, RemoveArgs, ReplaceArgs, Watcher, list, remove, replace};
