//! What changes of replicas cost those who write: p99 of writes while regions grow, shrink and move,
//! and while a store arrives, against the time before each, under the same load.

use std::time::Duration;

use quorate_client::placement::RegionInfo;
use quorate_proto::wire::placement::{ChangeReplicaRequest, RemoveStoreRequest};
use quorate_proto::{Role, StoreId};

use super::load::{Load, Pace};
use super::spread::{Spread, ordinary, voters};
use super::stage::{Shape, Stage};
use super::{Common, Faults, Verdict};
use crate::exit::Outcome;
use crate::output;

/// Places that the load works at, each written at this pace: some 500 writes a second.
const PLACES: usize = 24;
const PACE: Duration = Duration::from_millis(50);
/// Replicas that move at once when some move on request.
const SWAPS: usize = 8;
/// Nothing is under way once no operator has been for so long.
const RESTS: Duration = Duration::from_secs(3);
/// By how much p99 may grow.
const WANTED: f64 = 3.0;
/// Keeps replicas where they were put, but for while a store arrives.
const BALANCE: &str = "balance-region";

/// What this demo takes beyond what all take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImpactArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// How often everything is done
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of each window before a change
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
    /// Regions
    #[arg(long, value_name = "COUNT", default_value_t = 24,
          value_parser = clap::value_parser!(u16).range(3..=1_000))]
    regions: u16,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Growth,
    Removal,
    Swap,
    Arrival,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Growth, Self::Removal, Self::Swap, Self::Arrival];

    const fn name(self) -> &'static str {
        match self {
            Self::Growth => "3→5 voters",
            Self::Removal => "5→3 voters",
            Self::Swap => "replicas that move",
            Self::Arrival => "a store that arrives",
        }
    }
}

/// Runs it.
///
/// # Errors
/// It cannot be run to its end.
pub(super) async fn run(args: &ImpactArgs) -> Outcome<Verdict> {
    let shape = Shape { placements: 3, stores: 5, store_settings: "" };
    let mut stage = Stage::set("impact", &args.common, &shape).await?;
    stage.import_all().await?;
    stage.split_into(args.regions.into()).await?;
    stage.screen.say(&format!(
        "demo settings: all defaults; {BALANCE} is paused but for while a store arrives"
    ));
    let load = stage.paced_load(PLACES, Pace::Every(PACE))?;
    let window = Duration::from_secs(args.seconds.into());
    let mut rounds = Rounds { stage, load, window, ratios: Vec::new() };
    for round in 1..=args.rounds {
        for kind in Kind::ALL {
            rounds.measure(round, kind).await?;
        }
    }
    let Rounds { mut stage, load, ratios, .. } = rounds;
    stage.screen.clear();
    let tally = load.stop(stage.deadline).await?;

    let mut verdict = Verdict::default();
    verdict.figure(format!(
        "p99 of writes during against before, median of {} (wanted: at most {WANTED})",
        output::plural(args.rounds.into(), "round")
    ));
    for kind in Kind::ALL {
        let of = ratios.iter().filter(|(of, _)| *of == kind).map(|(_, ratio)| *ratio);
        let median = median(of.collect());
        verdict.figure(format!("{} × {median:.2}", kind.name()));
        let words = format!("{}: p99 × {median:.2}", kind.name());
        verdict.check(median <= WANTED, words);
    }
    verdict.load(&tally, Faults::None);
    verdict.records(stage.verify().await);
    Ok(verdict)
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(0.0)
}

struct Rounds {
    stage: Stage,
    load: Load,
    window: Duration,
    ratios: Vec<(Kind, f64)>,
}

impl Rounds {
    /// One window of rest, one change, and how p99 of both compare.
    async fn measure(&mut self, round: u16, kind: Kind) -> Outcome {
        self.stage.placement.set_scheduler(BALANCE, kind != Kind::Arrival).await?;
        self.stage.rests(&self.load, RESTS).await?;
        let from = self.load.elapsed();
        while self.load.elapsed() < from + self.window {
            self.stage.screen.rows(vec![self.load.line()]);
            self.stage.in_time("the window before a change")?;
            self.stage.pause().await;
        }
        let begun = self.load.elapsed();
        let arrived = match kind {
            Kind::Growth => self.replicas(5).await?,
            Kind::Removal => self.replicas(3).await?,
            Kind::Swap => self.swap().await?,
            Kind::Arrival => Some(self.arrive().await?),
        };
        let ended = self.load.elapsed();
        let (before, during) = self.load.with_timeline(|timeline| {
            (timeline.figures(from, begun), timeline.figures(begun, ended))
        });
        let ratio = during.p99.as_secs_f64() / before.p99.as_secs_f64().max(1e-6);
        self.ratios.push((kind, ratio));
        self.stage.screen.say(&format!(
            "round {round}, {}: p99 {} before, {} during {} of it: × {ratio:.2}",
            kind.name(),
            output::time(before.p99),
            output::time(during.p99),
            output::time(ended - begun),
        ));
        match arrived {
            Some((name, id)) => self.take_out(&name, id).await,
            None => Ok(()),
        }
    }

    /// Waits until all regions are as they should be and nothing is under way.
    async fn until(&mut self, what: &str, done: impl Fn(&[RegionInfo]) -> bool) -> Outcome {
        loop {
            let busy = self.stage.placement.operators(0, false).await?;
            if busy.is_empty() && done(&self.stage.regions().await?) {
                return Ok(());
            }
            let row =
                format!("{what}: {} under way", output::plural(busy.len() as u64, "operator"));
            self.stage.screen.rows(vec![row, self.load.line()]);
            self.stage.in_time(what)?;
            self.stage.pause().await;
        }
    }

    async fn replicas(&mut self, count: usize) -> Outcome<Option<(String, StoreId)>> {
        self.stage.change(&[("replicas", &count.to_string())]).await?;
        let what = format!("every region has {count} voters");
        let all = |regions: &[RegionInfo]| ordinary(regions).all(|r| voters(r) == (count, count));
        self.until(&what, all).await?;
        Ok(None)
    }

    /// Some regions, spread over all, give a follower to a store that has none of theirs.
    async fn swap(&mut self) -> Outcome<Option<(String, StoreId)>> {
        let stores = self.stage.ids().await?;
        let regions = self.stage.regions().await?;
        let all: Vec<&RegionInfo> = ordinary(&regions).collect();
        let step = (all.len() / SWAPS).max(1);
        let mut moves = Vec::new();
        for (number, info) in all.iter().step_by(step).take(SWAPS).enumerate() {
            let Some((from, to)) = exchange(info, &stores, number) else { continue };
            let request = ChangeReplicaRequest {
                region_id: info.region.id.get(),
                add_store_id: to.get(),
                remove_store_id: from.get(),
                analytics: false,
            };
            self.stage.placement.change_replica(request).await?;
            moves.push((info.region.id, from, to));
        }
        let what = format!("{} have moved", output::plural(moves.len() as u64, "replica"));
        let moved = |regions: &[RegionInfo]| {
            moves.iter().all(|(id, from, to)| {
                regions.iter().find(|info| info.region.id == *id).is_some_and(|info| {
                    info.region.peer_on(*from).is_none() && info.region.peer_on(*to).is_some()
                })
            })
        };
        self.until(&what, moved).await?;
        Ok(None)
    }

    /// A store arrives and gets its share.
    async fn arrive(&mut self) -> Outcome<(String, StoreId)> {
        let (name, id) = self.stage.add_store().await?;
        let stores = self.stage.ids().await?;
        let even = |regions: &[RegionInfo]| Spread::of(regions, &stores).is_even();
        self.until(&format!("{name} has its share"), even).await?;
        Ok((name, id))
    }

    /// The store leaves again, so that every round begins as the first one did.
    async fn take_out(&mut self, name: &str, id: StoreId) -> Outcome {
        let request =
            RemoveStoreRequest { store_id: id.get(), cancel: false, dead: false, with_store_id: 0 };
        self.stage.placement.remove_store(request).await?;
        loop {
            let status = self.stage.status().await?;
            let left = status.stores.iter().any(|entry| {
                entry.state == "Left" && entry.store.as_ref().is_some_and(|s| s.id == id.get())
            });
            if left {
                return self.stage.local.forget_left(self.stage.deadline).await;
            }
            self.stage.screen.rows(vec![format!("{name} leaves again"), self.load.line()]);
            self.stage.in_time(&format!("{name} has left"))?;
            self.stage.pause().await;
        }
    }
}

/// A follower of a region, and a store that has none of its replicas; with every number others.
fn exchange(info: &RegionInfo, stores: &[StoreId], number: usize) -> Option<(StoreId, StoreId)> {
    let leader = info.leader.map(|leader| leader.store);
    let peers = info.region.peers.iter();
    let followers = peers.filter(|peer| peer.role == Role::Voter && Some(peer.store) != leader);
    let from: Vec<StoreId> = followers.map(|peer| peer.store).collect();
    let free = stores.iter().copied().filter(|store| info.region.peer_on(*store).is_none());
    let to: Vec<StoreId> = free.collect();
    let pick = |of: &[StoreId]| of.get(number % of.len().max(1)).copied();
    Some((pick(&from)?, pick(&to)?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::{Epoch, KeyRange, Peer, PeerId, Region, RegionId};

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn a_follower_goes_where_no_replica_is() {
        let peer = |store| Peer { id: PeerId(store), store: StoreId(store), role: Role::Voter };
        let region = Region {
            id: RegionId(7),
            range: KeyRange::new(Bytes::new(), Bytes::new()),
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![peer(1), peer(2), peer(3)],
        };
        let info = RegionInfo { region, leader: Some(peer(1)) };
        let stores: Vec<StoreId> = (1..=5).map(StoreId).collect();
        assert_eq!(exchange(&info, &stores, 0), Some((StoreId(2), StoreId(4))));
        assert_eq!(exchange(&info, &stores, 1), Some((StoreId(3), StoreId(5))));
        assert_eq!(exchange(&info, &stores[..3], 0), None);
    }
}
