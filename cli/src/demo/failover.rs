//! kill -9 of one store after the other, while clients write and read.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_proto::StoreId;

use super::load::{Load, Pace};
use super::spread::led_by;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::cluster::end;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Failover is what the default settings give: nothing is shortened.
const SETTINGS: &str = "";
/// Acknowledged writes of every place that say that it is served again.
const ENOUGH: usize = 10;
/// How long the load runs undisturbed before the first kill.
const BEFORE: Duration = Duration::from_secs(5);
/// The longest gap wanted at default settings on a machine that is not overloaded.
const WANTED: Duration = Duration::from_millis(1_500);
/// A gap is looked for from so long before a kill on, so that the last write before it counts.
const LOOK_BACK: Duration = Duration::from_millis(300);

/// What this demo takes beyond what all take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Regions, each with a place that the load works at
    #[arg(long, value_name = "COUNT", default_value_t = 24,
          value_parser = clap::value_parser!(u16).range(3..=1_000))]
    regions: u16,
    /// Kills: of each store in turn
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    kills: u16,
    /// Write only to the regions that the next victim leads, so that many regions are no great load
    #[arg(long)]
    led_only: bool,
    /// Milliseconds between an answer and the next write to the same place
    #[arg(long, value_name = "MS", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pause: u16,
    /// Milliseconds without a write of a region from which on the demo has failed
    #[arg(long, value_name = "MS", default_value_t = 1_500)]
    within: u64,
}

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(args: &FailoverArgs) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: SETTINGS };
    let mut stage = Stage::set("failover", &args.common, &shape).await?;
    stage.screen.say("demo settings: none, all defaults");
    stage.import_all().await?;
    let regions = usize::from(args.regions);
    stage.split_into(regions).await?;
    let pace = Pace::After(Duration::from_millis(args.pause.into()));
    let load = stage.paced_load(regions, pace)?;
    if args.led_only {
        focus(&stage, &load, &stage.stores()[0]).await?;
    }
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

    let mut gaps = Vec::new();
    let victims = stage.stores().into_iter().cycle().take(args.kills.into());
    for (number, name) in victims.enumerate() {
        if args.led_only {
            focus(&stage, &load, &name).await?;
            served(&mut stage, &load, "its regions are written").await?;
        }
        let gap = kill(&mut stage, &load, &name).await?;
        gaps.push(gap);
        stage.screen.say(&format!(
            "kill {} of {}: every region is written again; the longest gap was {}",
            number + 1,
            args.kills,
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

    gaps.sort_unstable();
    let (longest, median) = (gaps[gaps.len() - 1], gaps[gaps.len() / 2]);
    let mut verdict = Verdict::default();
    verdict.figure(format!(
        "{} stores killed, longest gap of any region {}, median of the kills {} (wanted: under {})",
        args.kills,
        output::time(longest),
        output::time(median),
        output::time(WANTED)
    ));
    let limit = Duration::from_millis(args.within);
    verdict
        .check(longest < limit, format!("a region was not written for {}", output::time(longest)));
    verdict.load(&tally, Faults::Killed);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

/// Kills a store and waits until every place is written again; the longest gap of one of them.
async fn kill(stage: &mut Stage, load: &Load, name: &str) -> Outcome<Duration> {
    let led = led_places(stage, load, name).await?;
    let process = stage.local.process(name)?.pid;
    let from = load.elapsed().saturating_sub(LOOK_BACK);
    end::kill(&[stage.local.member(name)?])?;
    let count = led.len();
    stage.screen.say(&format!("kill -9 {process}: {name}, which led {count} of the regions"));
    served(stage, load, "all places are written again").await?;
    let (busy, to) = (load.busy(), load.elapsed());
    let counts = |place| busy.contains(&place);
    Ok(load.with_timeline(|timeline| timeline.longest_gap_of(counts, from, to)).0)
}

/// Writes only to the regions that a store leads.
async fn focus(stage: &Stage, load: &Load, name: &str) -> Outcome {
    let led = led_places(stage, load, name).await?;
    if led.is_empty() {
        return Err(Failure::error(format!("{name} leads no region: nothing can be measured")));
    }
    load.focus(&led);
    Ok(())
}

/// Places whose regions a store leads.
async fn led_places(stage: &Stage, load: &Load, name: &str) -> Outcome<BTreeSet<usize>> {
    let ids = stage.local.store_ids(stage.deadline).await?;
    let store = ids.get(name).copied().map(StoreId);
    let store = store.ok_or_else(|| Failure::error(format!("{name} has no id")))?;
    Ok(led_by(store, &stage.regions().await?, load.places()))
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
