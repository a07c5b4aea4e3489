//! What an operator asks: is it healthy, where is what, and a few requests.

pub(crate) mod health;
mod region;
mod status;
mod store;

pub(crate) use region::{RegionCommand, region};
pub(crate) use status::{StatusArgs, status};
pub(crate) use store::{ListArgs, list};
