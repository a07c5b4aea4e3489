//! `quorate store add`: one more store for the cluster of `quorate up`, remembered with the others.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_proto::wire::placement::StatusResponse;

use super::description::Role;
use super::find;
use super::local::Local;
use super::spawn::Bond;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Between two looks at whether the store has joined.
const POLL: Duration = Duration::from_millis(100);

/// Starts one more store process of the local cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The data folder given to `quorate up` [default: the nearest data/dev, or the last one]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Seconds to wait until it has joined
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
}

/// Runs the command.
///
/// # Errors
/// No cluster runs, or the store does not join in time.
pub(crate) async fn add(args: &AddArgs) -> Outcome {
    let folder = find::folder(args.data.as_deref())?;
    let mut local = Local::open(&folder, Bond::None)?;
    if local.cluster().of(Role::Placement).all(|member| member.running().is_none()) {
        return Err(Failure::unavailable(
            "the cluster does not run: start it with `quorate up`, then add the store",
        ));
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let (name, id, status) = local.add_store(deadline).await?;
    let address = local.member(&name)?.address.clone();
    output::emit(&format!("{name} joined as s{id} at {address}; {}\n", share(&status)))
}

impl Local {
    /// Adds a store, starts it, and waits until placement takes it for up; its name, its id, and
    /// what placement says then.
    ///
    /// # Errors
    /// It ends, or does not join in time.
    pub(crate) async fn add_store(
        &mut self,
        deadline: Instant,
    ) -> Outcome<(String, u64, StatusResponse)> {
        let name = self.add(Role::Store)?;
        self.start(&name)?;
        let address = self.member(&name)?.address.clone();
        loop {
            self.process(&name)?;
            let status = self.status(deadline).await?;
            let joined = status.stores.iter().find(|entry| {
                let is_it = entry.store.as_ref().is_some_and(|store| store.address == address);
                is_it && entry.state == "Up"
            });
            if let Some(id) = joined.and_then(|entry| Some(entry.store.as_ref()?.id)) {
                return Ok((name, id, status));
            }
            if Instant::now() >= deadline {
                return Err(Failure::unavailable(format!(
                    "{name} has not joined in time; see {}/logs, or wait longer with --wait \
                     SECONDS",
                    self.folder().display()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What a new store may expect: its share of all replicas, without those of the sentinel region.
pub(crate) fn share(status: &StatusResponse) -> String {
    let stores = status.stores.iter().filter(|entry| entry.state == "Up").count() as u64;
    let regions = status.regions.saturating_sub(1);
    let share = (regions * u64::from(status.replicas) / stores.max(1)).min(regions);
    match share {
        0 => "there is too little to share yet, regions come as the data grows".to_owned(),
        share => format!(
            "about {share} of {} will move to it, see `quorate operator list`",
            output::plural(regions, "region")
        ),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::placement::StoreStatus;

    use super::*;

    #[test]
    fn a_new_store_gets_its_share() {
        let up = StoreStatus { state: "Up".to_owned(), ..StoreStatus::default() };
        let status = StatusResponse {
            regions: 25,
            replicas: 3,
            stores: vec![up; 4],
            ..StatusResponse::default()
        };
        assert!(share(&status).starts_with("about 18 of 24 regions"), "{}", share(&status));
        let small = StatusResponse { regions: 2, ..status };
        assert!(share(&small).contains("too little"), "{}", share(&small));
    }
}
