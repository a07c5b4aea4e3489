//! A cluster whose processes are killed at the steps of changes of members.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_client::{PlacementClient, PlacementOptions};
use quorate_proto::wire::placement as wire;
use quorate_proto::{RegionId, StoreId};
use quorate_tests::process::{Cluster, Load, LoadOptions, Node, Shape, Witness, eventually};

use super::look::{Look, Step, Wanted};
use crate::membership::{CHANGE, pause_balance};
use crate::{RECOVERY, all_letters, clients};

/// Flags of every store. Snapshots are slow, so that one is found on its way; reports come more
/// often than by default, so that what has caught up is soon known to have.
const STORE_FLAGS: [&str; 2] = ["--snapshot-send-mib-per-sec=1", "--report-interval-ms=200"];
/// Settings of the cluster: what has caught up is ready soon.
const SETTINGS: [(&str, &str); 2] =
    [("lifecycle.stable_ms", "300"), ("lifecycle.catch_up_ms", "5000")];
/// How long one call may take while a configuration is kept from going on.
const QUICK: Duration = Duration::from_millis(250);
/// How long such a configuration is waited for. Leaders give up soon after.
const GLIMPSE: Duration = Duration::from_secs(2);
/// The load's pause: two of these clusters share a machine.
const PACE: Duration = Duration::from_millis(12);

/// Whose process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Victim {
    /// The member that leads placement.
    Placement,
    /// The store that leads the region.
    Region,
}

/// A process that was killed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Down {
    Placement(usize),
    Store(usize),
}

/// A region that is being changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) region: RegionId,
    pub(super) wanted: Wanted,
}

/// The cluster, its load, and the kills that are still owed.
pub(super) struct Story {
    pub(super) cluster: Cluster,
    pub(super) placement: PlacementClient,
    pub(super) stores: Vec<StoreId>,
    load: Load,
    witness: Witness,
    quick: PlacementClient,
    owed: BTreeSet<(Step, Victim)>,
}

impl Story {
    /// Three stores with the regions of all letters, then `more` empty ones, and a load. Each of
    /// `steps` is owed a kill of either leader.
    pub(super) async fn begin(more: usize, steps: &[Step]) -> Story {
        let shape = STORE_FLAGS.iter().fold(Shape::default(), |shape, flag| shape.store_flag(flag));
        let mut cluster = Cluster::start(shape).await;
        cluster.spread().await;
        let placement = cluster.placement().await;
        pause_balance(&placement).await;
        for _ in 0..more {
            cluster.join_store(&STORE_FLAGS);
        }
        let options = PlacementOptions { deadline: QUICK, ..PlacementOptions::default() };
        let quick = PlacementClient::connect(&cluster.placement_addresses(), options).await;
        let load = LoadOptions { contenders: 4, pause: PACE };
        let load = Load::start(&clients(&cluster).await, load);
        load.progress(&all_letters(), 20, RECOVERY).await;
        let both = |step: &Step| [(*step, Victim::Placement), (*step, Victim::Region)];
        let story = Story {
            stores: cluster.store_ids(),
            quick: quick.unwrap(),
            witness: Witness::start(cluster.placement().await),
            owed: steps.iter().flat_map(both).collect(),
            cluster,
            placement,
            load,
        };
        story.set(&SETTINGS).await;
        story
    }

    /// Changes settings of the cluster.
    pub(super) async fn set(&self, settings: &[(&str, &str)]) {
        let owned = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let changes: Vec<(String, String)> = owned.collect();
        eventually("settings are changed", RECOVERY, || async {
            let changed = self.placement.change_settings(changes.clone()).await;
            changed.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Who is to be killed at a step, if anybody still is.
    pub(super) fn owed(&self, step: Step) -> Option<Victim> {
        self.owed.iter().find(|(at, _)| *at == step).map(|(_, victim)| *victim)
    }

    /// True once every step was hit with either victim.
    pub(super) fn is_done(&self) -> bool {
        self.owed.is_empty()
    }

    pub(super) fn hit(&mut self, step: Step, victim: Victim) {
        println!("{:>5.1} s: {victim:?} killed at {step:?}", self.load.elapsed().as_secs_f64());
        self.owed.remove(&(step, victim));
    }

    /// A look at the region that must come.
    pub(super) async fn look(&self, change: Change) -> Look {
        eventually("a region is explained", RECOVERY, || Look::at(&self.placement, change.region))
            .await
    }

    /// Waits for a step; none where the region is past it already.
    pub(super) async fn reach(&self, change: Change, step: Step) -> Option<Look> {
        eventually(&format!("{} comes to {step:?}", change.region), CHANGE, || async {
            let look = Look::at(&self.placement, change.region).await?;
            match (look.is_at(step, change.wanted), look.is_past(step, change.wanted)) {
                (true, _) => Ok(Some(look)),
                (false, true) => Ok(None),
                (false, false) => Err(format!("{look:?}")),
            }
        })
        .await
    }

    /// Looks for a step that does not last, as quickly as placement answers.
    pub(super) async fn glimpse(&self, change: Change, step: Step) -> Option<Look> {
        let looking = async {
            loop {
                if let Ok(look) = Look::at(&self.quick, change.region).await
                    && look.is_at(step, change.wanted)
                {
                    return look;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(GLIMPSE, looking).await.ok()
    }

    /// kill -9 at a step that lasts a while, as soon as it is seen. It counts as hit where the
    /// region was not further when the victim was gone.
    pub(super) async fn strike(&mut self, change: Change, step: Step) {
        // Known before, so that nothing comes between the sight and the kill.
        let leader = self.cluster.placement_leader().await;
        let seen = self.reach(change, step).await;
        let (Some(victim), Some(seen)) = (self.owed(step), seen) else { return };
        let down = self.kill(victim, leader, &seen);
        let after = self.look(change).await;
        if !after.is_past(step, change.wanted) {
            self.hit(step, victim);
        }
        self.restart(down).await;
    }

    /// Kills placement's leader, or the store that leads the region.
    pub(super) fn kill(&mut self, victim: Victim, leader: usize, seen: &Look) -> Option<Down> {
        let down = match victim {
            Victim::Placement => Down::Placement(leader),
            Victim::Region => Down::Store(self.place_of(seen.leader?)),
        };
        self.node(down).kill();
        Some(down)
    }

    /// Starts it again, and lets the load go on everywhere.
    pub(super) async fn restart(&mut self, down: Option<Down>) {
        if let Some(down) = down {
            let node = self.node(down);
            node.start();
            node.ready(CHANGE);
        }
        self.load.progress(&all_letters(), 5, RECOVERY).await;
    }

    fn node(&mut self, down: Down) -> &mut Node {
        match down {
            Down::Placement(at) => &mut self.cluster.placements[at],
            Down::Store(at) => &mut self.cluster.stores[at],
        }
    }

    fn place_of(&self, store: StoreId) -> usize {
        self.stores.iter().position(|one| *one == store).expect("a store of this cluster")
    }

    /// Takes the processor away from stores, or gives it back.
    pub(super) fn pause(&self, stores: &[StoreId]) {
        stores.iter().for_each(|store| self.cluster.stores[self.place_of(*store)].pause());
    }

    pub(super) fn resume(&self, stores: &[StoreId]) {
        stores.iter().for_each(|store| self.cluster.stores[self.place_of(*store)].resume());
    }

    /// Holds a member on its way where it is, or lets it go on.
    pub(super) async fn hold(&self, change: Change, store: StoreId, held: bool) {
        use wire::change_member_request::Action;
        let action = if held { Action::Hold } else { Action::Release };
        let request = wire::ChangeMemberRequest {
            region_id: change.region.0,
            node_id: store.0,
            action: action.into(),
            with_node_id: 0,
            force: false,
            preview: false,
        };
        eventually("a member is held or released", RECOVERY, || async {
            self.placement.change_member(request).await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until these members have caught up.
    pub(super) async fn ready(&self, change: Change, stores: &[StoreId]) {
        eventually("the learners are ready", CHANGE, || async {
            let look = Look::at(&self.placement, change.region).await?;
            let ready = |store: &StoreId| matches!(look.state(*store), Some("Ready" | "Pairing"));
            if stores.iter().all(ready) { Ok(()) } else { Err(format!("{look:?}")) }
        })
        .await;
    }

    /// Waits until nothing is under way any more.
    pub(super) async fn rests(&self) {
        eventually("no operator is left", CHANGE, || async {
            let left = self.placement.operators(0, false).await;
            let left = left.map_err(|error| error.to_string())?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    /// Checks everything that must be true in the end. `promoted` regions have told of one
    /// promotion each, whatever was killed meanwhile.
    pub(super) async fn end(mut self, promoted: &[RegionId]) {
        assert!(self.owed.is_empty(), "never hit: {:?}", self.owed);
        self.rests().await;
        self.cluster.healthy().await;
        self.load.progress(&all_letters(), 10, RECOVERY).await;
        let events = self.placement.events(wire::EventsRequest::default()).await;
        let (mut events, mut told) = (events.unwrap(), Vec::new());
        while let Some(event) = events.message().await.unwrap() {
            told.push(event);
        }
        for region in promoted {
            let of = |event: &&wire::Event| event.region_id == region.0;
            let count = |kind: &str| told.iter().filter(of).filter(|one| one.kind == kind).count();
            assert_eq!(count("member-promoted"), 1, "{region}: {told:#?}");
        }
        let seen = self.witness.stop().await;
        assert!(seen.even.is_empty(), "even numbers of voters: {:#?}", seen.even);
        assert!(seen.looks >= 100, "only {} looks at all regions", seen.looks);
        let accounts = self.load.stop().await;
        accounts.check(&self.cluster.client().await, 1_000).await;
        self.cluster.covering_regions().await;
    }
}
