//! A store leaves while it serves; another one may not, because that could never end.

use quorate_client::Error;
use quorate_proto::StoreId;
use quorate_proto::wire::placement::RemoveStoreRequest;

use super::spread::Spread;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::admin::Watcher;
use crate::cluster::end;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Regions of the cluster.
const REGIONS: usize = 30;
/// Places that the load works at.
const PLACES: usize = 24;
/// The store that leaves: one of the first three, so that it has much to give.
const LEAVING: &str = "store-1";

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(common: &Common) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 4, store_settings: "" };
    let mut stage = Stage::set("decommission", common, &shape).await?;
    stage.move_fast().await?;
    let load = stage.furnish(REGIONS, PLACES).await?;

    let ids = stage.local.store_ids(stage.deadline).await?;
    let id = |name: &str| ids.get(name).copied().map(StoreId);
    let leaving = id(LEAVING).ok_or_else(|| Failure::error(format!("{LEAVING} has no id")))?;
    let began = stage.screen.elapsed();
    let replicas = stage.placement.remove_store(remove(leaving)).await?;
    stage.screen.say(&format!(
        "{leaving} ({LEAVING}) is leaving: {} to move",
        output::plural(replicas, "replica")
    ));
    let mut watcher = Watcher::new(leaving, replicas);
    while let Some(mut rows) = watcher.look(&stage.placement).await? {
        rows.push(load.line());
        stage.screen.rows(rows);
        stage.in_time(&format!("{leaving} has left"))?;
        stage.pause().await;
    }
    let took = stage.screen.elapsed() - began;
    stage.screen.clear();
    stage.screen.say(&format!("{leaving} has left after {}", output::time(took)));
    let stores: Vec<StoreId> = ids.values().copied().map(StoreId).collect();
    let spread = Spread::of(&stage.regions().await?, &stores);
    let left = spread.on(leaving);

    let refused = match id("store-2") {
        Some(next) => stage.placement.remove_store(remove(next)).await,
        None => Ok(0),
    };
    end::stop(&[stage.local.member(LEAVING)?], false)?;
    stage.screen.say(&format!("{LEAVING} is stopped for good"));
    let silent = load.elapsed();
    while !load.silent(silent, 5).is_empty() {
        stage.screen.rows(vec![load.line()]);
        stage.in_time("all places are written without it")?;
        stage.pause().await;
    }
    stage.screen.clear();
    let end = load.elapsed();
    let gap = load.with_timeline(|timeline| timeline.longest_gap(std::time::Duration::ZERO, end)).0;
    let tally = load.stop(stage.deadline).await?;

    let mut verdict = Verdict::default();
    verdict.figure(format!(
        "{leaving} gave {} away and left in {}, longest gap of any region {}",
        output::plural(replicas, "replica"),
        output::time(took),
        output::time(gap)
    ));
    verdict.check(
        left.voters + left.learners == 0,
        format!("{leaving} still has replicas: {}", spread.words()),
    );
    match refused {
        Err(Error::Refused { reason, .. }) => {
            stage.screen.say(&format!("the next one is refused: {reason}"));
            verdict.figure("a removal that could not end was refused");
        }
        Err(other) => verdict.check(false, other.to_string()),
        Ok(_) => verdict.check(false, "a removal that can never end was begun"),
    }
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

fn remove(store: StoreId) -> RemoveStoreRequest {
    RemoveStoreRequest { store_id: store.get(), cancel: false, dead: false, with_store_id: 0 }
}
