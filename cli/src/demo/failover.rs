//! kill -9 of each store in turn, while clients write and read.

use std::time::Duration;

use super::load::Load;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::cluster::end;
use crate::exit::Outcome;
use crate::output;

/// Failover is what the default settings give: nothing is shortened.
const SETTINGS: &str = "";
/// Regions, and places that the load works at: one for each.
const REGIONS: usize = 24;
/// Acknowledged writes of every place that say that it is served again.
const ENOUGH: usize = 10;
/// How long the load runs undisturbed before the first kill.
const BEFORE: Duration = Duration::from_secs(5);

/// What it takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Milliseconds that a region may go without a write; the default is what default settings
    /// give on a machine that is not overloaded
    #[arg(long, value_name = "MS", default_value_t = 1_500)]
    gap: u64,
}

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(args: &Args) -> Outcome<Verdict> {
    let allowed = Duration::from_millis(args.gap);
    let shape = Shape { placements: 3, stores: 3, store_settings: SETTINGS };
    let mut stage = Stage::set("failover", &args.common, &shape).await?;
    stage.screen.say("demo settings: none, all defaults");
    let load = stage.furnish(REGIONS, REGIONS).await?;
    served(&mut stage, &load, "the load begins").await?;
    while load.elapsed() < BEFORE {
        stage.screen.rows(vec![load.line()]);
        stage.pause().await;
    }
    let calm = load.with_timeline(|timeline| timeline.figures(BEFORE / 2, load.elapsed()));
    stage.screen.say(&format!(
        "undisturbed: {} writes/s, p50 {}, p99 {}",
        output::count(calm.rate),
        output::time(calm.p50),
        output::time(calm.p99)
    ));

    let mut longest = Duration::ZERO;
    for name in stage.stores() {
        let led = leaders(&stage, &name).await?;
        let from = load.elapsed();
        let process = stage.local.process(&name)?.pid;
        end::kill(&[stage.local.member(&name)?])?;
        stage.screen.say(&format!("kill -9 {process}: {name}, which led {led} regions"));
        served(&mut stage, &load, "all places are written again").await?;
        let to = load.elapsed();
        let (gap, _) = load.with_timeline(|timeline| timeline.longest_gap(from, to));
        longest = longest.max(gap);
        stage.screen.say(&format!(
            "every region is written again; the longest gap was {}",
            output::time(gap)
        ));
        stage.local.start(&name)?;
        stage.local.ready(|member| member.name() == name, stage.deadline)?;
        stage.local.healthy(stage.deadline).await?;
        stage.balanced().await?;
        stage.screen.say(&format!("{name} is back, has caught up, and leads its share"));
    }
    stage.screen.clear();
    let tally = load.stop(stage.deadline).await?;

    let mut verdict = Verdict::default();
    verdict.figure(format!(
        "3 stores killed, longest gap of any region {} (allowed: {})",
        output::time(longest),
        output::time(allowed)
    ));
    verdict.check(
        longest <= allowed,
        format!(
            "a region was not written for {}, {} are allowed (--gap)",
            output::time(longest),
            output::time(allowed)
        ),
    );
    verdict.load(&tally, Faults::Killed);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

/// Waits until every place has been written some times.
async fn served(stage: &mut Stage, load: &Load, what: &str) -> Outcome {
    let since = load.elapsed();
    loop {
        let silent = load.silent(since, ENOUGH);
        if silent.is_empty() {
            return Ok(());
        }
        stage.screen.rows(vec![load.line(), format!("{} places wait", silent.len())]);
        stage.in_time(what)?;
        stage.pause().await;
    }
}

/// Regions that a store leads, by its own account.
async fn leaders(stage: &Stage, name: &str) -> Outcome<u32> {
    let ids = stage.local.store_ids(stage.deadline).await?;
    let status = stage.status().await?;
    let of_store = status
        .stores
        .iter()
        .find(|entry| entry.store.as_ref().is_some_and(|store| Some(&store.id) == ids.get(name)));
    Ok(of_store.and_then(|entry| entry.last.as_ref()).map_or(0, |report| report.leader_count))
}
