//! A fourth store arrives: replicas and leaders level out, then nothing moves any more.

use std::time::Duration;

use quorate_proto::StoreId;

use super::load::Load;
use super::spread::Spread;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::exit::Outcome;
use crate::output;

/// Regions before the store arrives.
const REGIONS: usize = 60;
/// Places that the load works at.
const PLACES: usize = 24;
/// The skew wanted, in percent of the mean.
const WANTED: f64 = 10.0;
/// How long nothing may begin in the end.
const STILL: Duration = Duration::from_secs(15);
/// How long the load runs undisturbed before.
const BEFORE: Duration = Duration::from_secs(5);

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(common: &Common) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: "" };
    let mut stage = Stage::set("rebalance", common, &shape).await?;
    stage.move_fast().await?;
    let load = stage.furnish(REGIONS, PLACES).await?;
    while load.elapsed() < BEFORE {
        stage.screen.rows(vec![load.line()]);
        stage.pause().await;
    }
    let calm = load.with_timeline(|timeline| timeline.figures(BEFORE / 2, BEFORE));

    let (name, _) = stage.add_store().await?;
    let (from, began) = (load.elapsed(), stage.screen.elapsed());
    let mut verdict = Verdict::default();
    let spread = level(&mut stage, &load).await?;
    let (to, took) = (load.elapsed(), stage.screen.elapsed() - began);
    stage.screen.say(&format!("level: {}", spread.words()));
    let moving = load.with_timeline(|timeline| timeline.figures(from, to));
    let spread = still(&mut stage, &load).await?;
    let tally = load.stop(stage.deadline).await?;

    verdict.figure(format!(
        "{name} has its share after {}, skew of replicas {:.1} %, of leaders {:.1} % (wanted: at \
         most {WANTED} %)",
        output::time(took),
        spread.replica_skew(),
        spread.leader_skew()
    ));
    verdict.figure(format!(
        "then nothing moved for {}, by the schedulers' count",
        output::time(STILL)
    ));
    verdict.check(spread.replica_skew() <= WANTED, format!("uneven: {}", spread.words()));
    verdict.check(spread.leader_skew() <= WANTED, format!("uneven: {}", spread.words()));
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    verdict.figure(format!(
        "p99 of writes {} before, {} while moving",
        output::time(calm.p99),
        output::time(moving.p99)
    ));
    Ok(verdict)
}

/// Stores that have their ids.
async fn stores(stage: &Stage) -> Outcome<Vec<StoreId>> {
    let ids = stage.local.store_ids(stage.deadline).await?;
    Ok(ids.into_values().map(StoreId).collect())
}

/// Waits until the skew is as wanted.
async fn level(stage: &mut Stage, load: &Load) -> Outcome<Spread> {
    let stores = stores(stage).await?;
    loop {
        let spread = Spread::of(&stage.regions().await?, &stores);
        if spread.replica_skew() <= WANTED && spread.leader_skew() <= WANTED {
            return Ok(spread);
        }
        show(stage, load, &spread);
        stage.in_time(&format!("replicas and leaders level out ({})", spread.words()))?;
        stage.pause().await;
    }
}

/// Waits until no scheduler has begun anything for long enough, and nothing is under way: counted by
/// placement, so that no move between two looks is missed.
async fn still(stage: &mut Stage, load: &Load) -> Outcome<Spread> {
    let stores = stores(stage).await?;
    let (mut since, mut begun) = (stage.screen.elapsed(), None);
    loop {
        let schedulers = stage.placement.schedulers().await?;
        let now: Vec<(String, u64)> =
            schedulers.into_iter().map(|one| (one.name, one.operators_begun)).collect();
        let busy = stage.placement.operators(0, false).await?;
        if !busy.is_empty() || begun.as_ref() != Some(&now) {
            since = stage.screen.elapsed();
            let reason = busy.first().map_or("", |one| one.reason.as_str());
            stage.in_time(&format!("nothing moves any more ({reason})"))?;
        }
        begun = Some(now);
        let spread = Spread::of(&stage.regions().await?, &stores);
        if stage.screen.elapsed() - since >= STILL {
            stage.screen.clear();
            return Ok(spread);
        }
        show(stage, load, &spread);
        stage.pause().await;
    }
}

fn show(stage: &mut Stage, load: &Load, spread: &Spread) {
    let mut rows = spread.rows();
    rows.push(load.line());
    stage.screen.rows_or(rows, || format!("{} · {}", spread.words(), load.line()));
}
