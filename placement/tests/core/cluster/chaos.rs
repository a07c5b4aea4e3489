//! Merges among everything that may happen beside them, drawn from a seed: the model of the stores
//! panics where a source goes on without a proof, or is taken in at another epoch than it named.

use quorate_proto::{RegionId, Role, StoreId};

use super::Cluster;

/// A generator that is good enough to draw what happens next.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn region(&mut self, cluster: &Cluster) -> RegionId {
        let ids: Vec<RegionId> = cluster.regions.keys().copied().collect();
        ids[self.below(ids.len() as u64) as usize]
    }
}

/// Something happens, or nothing.
fn happen(cluster: &mut Cluster, draw: &mut Draw) {
    if draw.one_in(12) {
        let (source, now) = (draw.region(cluster), cluster.now);
        let into = draw.one_in(2).then(|| draw.region(cluster));
        let _ = cluster.leader.merge(&cluster.machine.state, source, into, now);
    }
    if draw.one_in(40) {
        let ids: Vec<u64> = cluster.leader.operators().iter().map(|one| one.id).collect();
        if let Some(id) = ids.first() {
            let _ = cluster.leader.cancel(*id, cluster.now);
        }
    }
    if draw.one_in(60) {
        cluster.failover();
    }
    if draw.one_in(50) {
        let dead = cluster.stores.values().filter(|store| store.dead).count();
        let store = cluster.stores.get_mut(&(1 + draw.below(3))).unwrap();
        store.dead = !store.dead && dead == 0;
    }
    if draw.one_in(30) {
        // It splits, or changes its members: what matters is the epoch.
        let region = draw.region(cluster);
        let hosted = cluster.regions.get_mut(&region).unwrap();
        match (hosted.merging, draw.one_in(2)) {
            (Some(_), _) => {}
            (None, true) => hosted.region.epoch.version += 1 + draw.below(3),
            (None, false) => hosted.region.epoch.conf_ver += 1,
        }
    }
    if draw.one_in(25) {
        let (region, to) = (draw.region(cluster), StoreId(1 + draw.below(3)));
        let alive = !cluster.stores[&to.0].dead;
        let hosted = cluster.regions.get_mut(&region).unwrap();
        let votes = hosted.region.peer_on(to).is_some_and(|peer| peer.role == Role::Voter);
        if alive && votes {
            hosted.leader = to;
            hosted.term += 1;
        }
    }
    if draw.one_in(30) {
        // What is on its way to a store is late, or arrives at last.
        let id = 1 + draw.below(3);
        let store = cluster.stores.get_mut(&id).unwrap();
        store.holds_all = true;
        match (store.held.take(), store.dead) {
            (None, _) => store.held = Some(Vec::new()),
            (Some(_), true) => {}
            (Some(late), false) => {
                late.into_iter().for_each(|order| cluster.obey(StoreId(id), order))
            }
        }
    }
    if draw.one_in(30) {
        cluster.replicates = !cluster.replicates;
    }
}

fn heal(cluster: &mut Cluster) {
    cluster.replicates = true;
    for id in 1..=3 {
        let store = cluster.stores.get_mut(&id).unwrap();
        store.dead = false;
        for order in store.held.take().into_iter().flatten() {
            cluster.obey(StoreId(id), order);
        }
    }
}

#[test]
fn whatever_happens_nothing_stays_stopped_and_no_key_has_two_owners() {
    let (mut merges, mut rolled_back) = (0, 0);
    for seed in 0..150 {
        let mut cluster = Cluster::new(3, 8);
        let mut draw = Draw(seed);
        for _ in 0..400 {
            happen(&mut cluster, &mut draw);
            cluster.tick();
        }
        heal(&mut cluster);
        cluster.seconds(90);
        let told = format!("seed {seed}: {:?}", cluster.done);
        let under_way: Vec<_> = cluster.leader.operators().under_way().collect();
        assert!(under_way.is_empty(), "{told}: {under_way:?}");
        let mut regions: Vec<_> = cluster.regions.values().collect();
        regions.sort_by(|a, b| a.region.range.start.cmp(&b.region.range.start));
        assert!(regions.iter().all(|one| one.merging.is_none()), "{told}");
        for pair in regions.windows(2) {
            assert_eq!(pair[0].region.range.end, pair[1].region.range.start, "{told}");
        }
        for one in regions {
            let known = cluster.leader.tree().get(one.region.id).map(|info| &info.region);
            assert_eq!(known, Some(&one.region), "{told}");
        }
        merges += cluster.done.iter().filter(|step| step.contains("takes")).count();
        rolled_back += cluster.done.iter().filter(|step| step.contains("goes on")).count();
    }
    assert!(merges > 150 && rolled_back > 15, "{merges} merges, {rolled_back} rolled back");
}
