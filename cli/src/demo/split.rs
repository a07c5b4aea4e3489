//! Real data comes in, and regions split while clients write and read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_client::placement::RegionInfo;
use quorate_proto::key;

use super::lineage::Lineage;
use super::spread::ordinary;
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::exit::{Failure, Outcome};
use crate::output;

/// Small regions, so that the records make about two dozen of them.
const SETTINGS: &str =
    "[split]\nregion_bytes = 1048576\nregion_keys = 5000\ncheck_interval_ms = 200\n";
/// Places that the load works at.
const PLACES: usize = 24;
/// Lines of the tree that are shown.
const TREE: usize = 40;
/// Splits have ended where there was none for that long after the records are in.
const STILL: Duration = Duration::from_secs(3);

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(common: &Common) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: SETTINGS };
    let mut stage = Stage::set("split", common, &shape).await?;
    stage
        .screen
        .say("demo settings: a region splits at 1 MiB or 5,000 keys (default: 96 MiB, 960,000)");
    let mut lineage = Lineage::default();
    look(&mut lineage, &stage).await?;
    let before = ordinary(&stage.regions().await?).count();
    let load = stage.load(PLACES)?;
    let (counted, import) = stage.import();
    let mut last_split = stage.screen.elapsed();
    loop {
        let splits = look(&mut lineage, &stage).await?;
        for split in &splits {
            last_split = stage.screen.elapsed();
            stage.screen.say(&format!(
                "{} gave its keys below {} to {}",
                split.parent,
                key::display(&split.at),
                split.child
            ));
        }
        let regions = ordinary(&stage.regions().await?).count();
        let rows =
            vec![stage.import_row(&counted), output::plural(regions as u64, "region"), load.line()];
        stage.screen.rows(rows);
        let still = stage.screen.elapsed().saturating_sub(last_split) > STILL;
        if import.is_finished() && still {
            break;
        }
        stage.in_time("the records are loaded and regions stop to split")?;
        stage.pause().await;
    }
    import.await.map_err(|error| Failure::error(format!("the import broke: {error}")))??;
    stage.screen.clear();
    stage.screen.say(&format!("{} records loaded", counted.load(Ordering::Relaxed)));
    for line in lineage.tree(TREE) {
        stage.screen.say(&line);
    }
    let end = load.elapsed();
    let (figures, gap) = load.with_timeline(|timeline| {
        (timeline.figures(Duration::ZERO, end), timeline.longest_gap(Duration::ZERO, end).0)
    });
    let tally = load.stop(stage.deadline).await?;

    let regions = stage.regions().await?;
    let after = ordinary(&regions).count();
    let mut verdict = Verdict::default();
    verdict.figure(format!("{before}→{after} regions"));
    verdict.check(after >= before + 3, format!("only {after} regions: hardly anything split"));
    verdict.check(covers(&regions), "the regions do not cover the key space".to_owned());
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    verdict.figure(format!(
        "writes while splitting p50 {} p99 {}, longest gap {}",
        output::time(figures.p50),
        output::time(figures.p99),
        output::time(gap)
    ));
    Ok(verdict)
}

async fn look(lineage: &mut Lineage, stage: &Stage) -> Outcome<Vec<super::lineage::Split>> {
    let regions = stage.regions().await?;
    let seen: Vec<_> =
        ordinary(&regions).map(|info| (info.region.id, info.region.range.start.clone())).collect();
    Ok(lineage.observe(&seen))
}

/// No gap, no overlap, from the first key to the last.
fn covers(regions: &[RegionInfo]) -> bool {
    let mut end = bytes::Bytes::new();
    for (number, info) in regions.iter().enumerate() {
        let range = &info.region.range;
        if range.start != end || (number > 0 && end.is_empty()) {
            return false;
        }
        end = range.end.clone();
    }
    !regions.is_empty() && end.is_empty()
}
