//! What a person who starts a store sees: under which id it serves, and what comes its way.

use std::time::Duration;

use quorate_client::{PlacementClient, PlacementOptions};
use quorate_proto::wire::placement::{StatusResponse, StoreStatus};
use quorate_store::StoreConfig;

use crate::{cluster, output};

/// Between two looks at whether the store has joined.
const POLL: Duration = Duration::from_millis(200);

/// Says so on stdout, once, when placement lists the store. A thread of its own: the store does
/// not wait for it. Not to be called before the store has its address: until then, the store that
/// placement lists there may be another process.
pub(super) fn announce(config: &StoreConfig) {
    let address = if config.advertise.is_empty() { &config.listen } else { &config.advertise };
    let (address, placement) = (address.clone(), config.placement.clone());
    let look = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        let words = runtime.block_on(async {
            loop {
                if let Some(words) = look(&placement, &address).await {
                    return words;
                }
                tokio::time::sleep(POLL).await;
            }
        });
        // Nobody may be there to read it: a store is not stopped by that.
        let _ = output::emit(&format!("{words}\n"));
    };
    // Without that thread a store runs all the same, and its log says what this would.
    drop(std::thread::Builder::new().name("joined".to_owned()).spawn(look));
}

async fn look(placement: &[String], address: &str) -> Option<String> {
    let client = PlacementClient::connect(placement, PlacementOptions::default()).await.ok()?;
    told(&client.status().await.ok()?, address)
}

/// What there is to say of the store at that address; `None` while it is not up.
fn told(status: &StatusResponse, address: &str) -> Option<String> {
    let is_it =
        |entry: &&StoreStatus| entry.store.as_ref().is_some_and(|store| store.address == address);
    let entry = status.stores.iter().find(is_it)?;
    let id = entry.store.as_ref()?.id;
    let hosted = entry.last.as_ref().map_or(0, |report| report.region_count);
    match (entry.state.as_str(), status.bootstrapped, hosted) {
        ("Up", true, 0) => Some(format!("joined as s{id}; {}", cluster::share(status))),
        ("Up", true, hosted) => {
            Some(format!("serving as s{id} with {}", output::plural(u64::from(hosted), "region")))
        }
        ("Joining" | "Up", false, _) => Some(format!(
            "joined as s{id}; the cluster waits for {}",
            output::plural(u64::from(status.missing_stores), "more store")
        )),
        ("Leaving", _, hosted) => Some(format!(
            "serving as s{id}, which is leaving: {} to move",
            output::plural(u64::from(hosted), "replica")
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::wire::metapb::Store;
    use quorate_proto::wire::placement::StoreReport;

    use super::*;

    #[test]
    fn a_store_says_once_who_it_is() {
        let store = |id, state: &str, region_count| StoreStatus {
            store: Some(Store { id, address: format!("h:{id}"), ..Store::default() }),
            state: state.to_owned(),
            last: Some(StoreReport { region_count, ..StoreReport::default() }),
            ..StoreStatus::default()
        };
        let stores = vec![store(1, "Up", 24), store(4, "Up", 0), store(5, "Suspect", 0)];
        let mut status = StatusResponse {
            bootstrapped: true,
            regions: 24,
            replicas: 3,
            stores,
            ..StatusResponse::default()
        };
        assert_eq!(told(&status, "h:1").as_deref(), Some("serving as s1 with 24 regions"));
        assert!(told(&status, "h:4").is_some_and(|words| words.starts_with("joined as s4; about")));
        assert_eq!((told(&status, "h:5"), told(&status, "h:9")), (None, None));
        (status.bootstrapped, status.missing_stores) = (false, 2);
        let words = told(&status, "h:4");
        assert_eq!(words.as_deref(), Some("joined as s4; the cluster waits for 2 more stores"));
    }
}
