//! Two stores arrive: their learners pair and are promoted together, three voters become five. Then
//! one arrives alone: its learners wait for partners in vain, and stand by.

use std::collections::BTreeSet;

use quorate_proto::RegionId;
use quorate_proto::wire::placement::MembersRequest;

use super::load::Load;
use super::spread::{ordinary, voters};
use super::stage::{Shape, Stage};
use super::teller::Teller;
use super::{Common, Faults, Verdict};
use crate::exit::{Failure, Outcome};
use crate::output;

/// Regions of the cluster.
const REGIONS: usize = 6;
/// Places that the load works at.
const PLACES: usize = 12;
/// Who would move replicas to the new stores while the story is told.
const PAUSED: &str = "balance-region";

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(common: &Common) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 3, store_settings: "" };
    let mut stage = Stage::set("join", common, &shape).await?;
    stage
        .change(&[
            ("lifecycle.stable_ms", "1000"),
            ("lifecycle.pairing_ms", "15000"),
            ("store_limit.additions", "1000"),
        ])
        .await?;
    stage.placement.set_scheduler(PAUSED, true).await?;
    stage.screen.say(&format!("demo settings: {PAUSED} is paused"));
    stage.import_all().await?;
    stage.split_into(REGIONS).await?;
    let regions = stage.regions().await?;
    let watched = ordinary(&regions).nth(REGIONS / 2).map(|info| info.region.id);
    let watched = watched.ok_or_else(|| Failure::error("there are no regions"))?;
    let load = stage.load(PLACES)?;
    let mut story = Story { watched, teller: Teller::listen(&stage.placement), even: Vec::new() };

    stage.change(&[("replicas", "5")]).await?;
    stage.screen.say(&format!("of all regions, this tells the story of {watched}"));
    let began = stage.screen.elapsed();
    stage.add_store().await?;
    stage.add_store().await?;
    story.until(&mut stage, &load, 5, "every region has five voters").await?;
    let took = stage.screen.elapsed() - began;
    stage.screen.say(&format!("all regions have five voters after {}", output::time(took)));

    stage.change(&[("replicas", "7")]).await?;
    let (name, alone) = stage.add_store().await?;
    let standby = story.standby(&mut stage, &load, alone.get()).await?;
    stage.screen.clear();
    let tally = load.stop(stage.deadline).await?;

    let mut verdict = Verdict::default();
    let promoted = story.teller.promoted();
    let ordinary_ids: BTreeSet<RegionId> =
        ordinary(&stage.regions().await?).map(|info| info.region.id).collect();
    let pairs: BTreeSet<RegionId> = promoted
        .iter()
        .filter(|one| one.together == 2 && one.voters == 5)
        .map(|one| one.region)
        .collect();
    verdict.figure(format!(
        "3→5 voters in {} regions after {}, in pairs by their events",
        REGIONS,
        output::time(took)
    ));
    let alone: Vec<String> =
        ordinary_ids.difference(&pairs).map(|region| region.to_string()).collect();
    verdict.check(alone.is_empty(), format!("not promoted as a pair: {}", alone.join(", ")));
    // Each tells of a configuration that is applied.
    let even = promoted.iter().filter(|one| one.voters % 2 == 0);
    story.even.extend(even.map(|one| format!("{} had {} voters", one.region, one.voters)));
    verdict.figure(format!("{standby} lone learners on {name} stand by"));
    verdict.figure(format!("{} even voter sets seen", story.even.len()));
    verdict.check(story.even.is_empty(), story.even.join("; "));
    let regions = stage.regions().await?;
    let grown = ordinary(&regions).all(|info| voters(info) == (5, 5));
    verdict.check(grown, "a lone learner was promoted, or a voter lost");
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

/// What is watched while members join.
struct Story {
    watched: RegionId,
    teller: Teller,
    /// Configurations with an even number of voters on a side, in words.
    even: Vec<String>,
}

impl Story {
    /// One look at all regions: tells what happened, and notes even voter sets.
    async fn look(&mut self, stage: &Stage) -> Outcome<Vec<(usize, usize)>> {
        self.teller.tell(stage, self.watched);
        let regions = stage.regions().await?;
        let mut all = Vec::new();
        for info in ordinary(&regions) {
            let (before, after) = voters(info);
            if before % 2 == 0 || after % 2 == 0 {
                self.even.push(format!("{} had {before}→{after} voters", info.region.id));
            }
            all.push((before, after));
        }
        Ok(all)
    }

    /// Waits until every region has so many voters, outside of joint changes.
    async fn until(
        &mut self,
        stage: &mut Stage,
        load: &Load,
        wanted: usize,
        what: &str,
    ) -> Outcome {
        loop {
            let all = self.look(stage).await?;
            let done = all.iter().filter(|both| **both == (wanted, wanted)).count();
            if done == all.len() && self.teller.has_said("member-promoted") {
                return Ok(());
            }
            let row = format!("{done} of {} regions have {wanted} voters", all.len());
            stage.screen.rows(vec![row, load.line()]);
            stage.in_time(what)?;
            stage.pause().await;
        }
    }

    /// The last region, which holds no records.
    async fn sentinel(&self, stage: &Stage) -> Outcome<u64> {
        let regions = stage.regions().await?;
        Ok(regions.last().map_or(0, |info| info.region.id.get()))
    }

    /// Waits until every region's learner on that store stands by; how many do.
    async fn standby(&mut self, stage: &mut Stage, load: &Load, store: u64) -> Outcome<usize> {
        loop {
            let regions = self.look(stage).await?.len();
            let last = self.sentinel(stage).await?;
            let request = MembersRequest { region_id: 0, placement: false };
            let members = stage.placement.lifecycles(request).await?;
            let alone = members
                .iter()
                .filter(|one| one.node_id == store && one.region_id != 0 && one.region_id != last);
            let standing = alone.filter(|one| one.state == "StandbyLearner").count();
            if standing >= regions && self.teller.has_said("member-standby") {
                return Ok(standing);
            }
            let row = format!("{standing} of {regions} lone learners stand by");
            stage.screen.rows(vec![row, load.line()]);
            stage.in_time("lone learners stand by")?;
            stage.pause().await;
        }
    }
}
