//! A fourth store arrives: replicas and leaders level out, then nothing moves any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::load::Load;
use super::spread::Spread;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::exit::Outcome;
use crate::output;

/// Places that the load works at.
const PLACES: usize = 24;
/// The skew wanted, in percent of the mean.
const WANTED: f64 = 10.0;
/// The move is over once no operator has been under way for so long.
const RESTS: Duration = Duration::from_secs(15);
/// Operators that are told of, where some begin that should not.
const SHOWN: usize = 5;
/// How long the load runs undisturbed before.
const BEFORE: Duration = Duration::from_secs(5);

/// What this demo takes beyond what all take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Regions before the store arrives
    #[arg(long, value_name = "COUNT", default_value_t = 60,
          value_parser = clap::value_parser!(u16).range(3..=1_000))]
    regions: u16,
    /// Seconds, after all has come to rest and the load has ended, in which nothing may begin
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    still: u64,
    /// Leave all settings as they are by default
    #[arg(long)]
    defaults: bool,
}

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(args: &RebalanceArgs) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: "" };
    let mut stage = Stage::set("rebalance", &args.common, &shape).await?;
    if args.defaults {
        stage.screen.say("demo settings: none, all defaults");
    } else {
        stage.move_fast().await?;
    }
    stage.import_all().await?;
    stage.split_into(args.regions.into()).await?;
    let load = stage.load(PLACES)?;
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
    stage.screen.say(&format!("level after {}: {}", output::time(took), spread.words()));
    let moving = load.with_timeline(|timeline| timeline.figures(from, to));
    stage.rests(&load, RESTS).await?;
    let rested = stage.screen.elapsed() - began - RESTS;
    stage
        .screen
        .say(&format!("the last operator ended {} after the arrival", output::time(rested)));
    let tally = load.stop(stage.deadline).await?;
    let still = Duration::from_secs(args.still);
    let begun = begun_within(&mut stage, still).await?;
    stage.screen.clear();
    let spread = Spread::of(&stage.regions().await?, &stage.ids().await?);

    verdict.figure(format!(
        "{name} has its share after {}, skew of replicas {:.1} %, of leaders {:.1} % (wanted: at \
         most {WANTED} %)",
        output::time(took),
        spread.replica_skew(),
        spread.leader_skew()
    ));
    if begun.is_empty() {
        verdict.figure(format!("then nothing moved for {}", output::time(RESTS + still)));
    }
    verdict.check(begun.is_empty(), format!("began without a reason: {}", begun.join("; ")));
    verdict.check(is_level(&spread), format!("uneven: {}", spread.words()));
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    verdict.figure(format!(
        "p99 of writes {} before, {} while moving",
        output::time(calm.p99),
        output::time(moving.p99)
    ));
    Ok(verdict)
}

/// True where the skew is as wanted, or where so few are spread that nothing could be more even.
fn is_level(spread: &Spread) -> bool {
    spread.is_even() || (spread.replica_skew() <= WANTED && spread.leader_skew() <= WANTED)
}

/// Waits until the skew is as wanted.
async fn level(stage: &mut Stage, load: &Load) -> Outcome<Spread> {
    let stores = stage.ids().await?;
    loop {
        let spread = Spread::of(&stage.regions().await?, &stores);
        if is_level(&spread) {
            return Ok(spread);
        }
        show(stage, load, &spread);
        stage.in_time(&format!("replicas and leaders level out ({})", spread.words()))?;
        stage.pause().await;
    }
}

/// Operators that begin within so long, those included that have ended already.
async fn begun_within(stage: &mut Stage, still: Duration) -> Outcome<Vec<String>> {
    let known: BTreeSet<u64> =
        stage.placement.operators(0, true).await?.iter().map(|one| one.id).collect();
    let since = stage.screen.elapsed();
    let mut begun = BTreeMap::new();
    while stage.screen.elapsed() - since < still && begun.len() < SHOWN {
        for one in stage.placement.operators(0, true).await? {
            if !known.contains(&one.id) {
                begun
                    .insert(one.id, format!("{} of r{} ({})", one.kind, one.region_id, one.reason));
            }
        }
        let left = still.saturating_sub(stage.screen.elapsed() - since);
        stage.screen.rows(vec![format!("nothing may begin for {} more", output::time(left))]);
        stage.in_time("nothing has begun for long enough")?;
        stage.pause().await;
    }
    Ok(begun.into_values().collect())
}

fn show(stage: &mut Stage, load: &Load, spread: &Spread) {
    let mut rows = spread.rows();
    rows.push(load.line());
    stage.screen.rows_or(rows, || format!("{} · {}", spread.words(), load.line()));
}
