//! Beats of three processes, and what a majority of them vouches for.

use quorate_proto::{NodeId, RegionId};

use super::{Vigil, agreed};
use crate::sleepers::{Mark, Sleepers};
use crate::time::Instant;
use crate::view::Slept;

/// Three processes, and one group that the first leads.
struct World {
    vigils: Vec<Vigil>,
    sleepers: Vec<Sleepers>,
    marks: Vec<Mark>,
    /// What each process's view says.
    slept: Vec<Slept>,
}

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

impl World {
    fn new() -> Self {
        let others = vec![NODES[1], NODES[2]];
        let mut marks = vec![Mark::led(RegionId(7), 6, 10, others)];
        marks.extend((1..3).map(|_| Mark::followed(RegionId(7), 6, 10, NODES[0])));
        Self {
            vigils: NODES.iter().map(|node| Vigil::new(*node, node.0 * 100)).collect(),
            sleepers: NODES.iter().map(|_| Sleepers::default()).collect(),
            marks,
            slept: vec![Slept::default(); 3],
        }
    }

    fn sleep(&mut self, on: &[usize]) {
        for node in on {
            let since = self.sleepers[*node].enter(&self.marks[*node]);
            self.slept[*node] = Slept { leader: NODES[0], since, until: u64::MAX };
        }
    }

    fn wake(&mut self, on: usize) {
        self.slept[on].until = self.sleepers[on].leave(&self.marks[on]);
    }

    /// Every process sends its beats at `time_ms`; those between the pairs in `cut` are lost.
    fn round(&mut self, time_ms: u64, cut: &[(usize, usize)]) {
        for (from, me) in NODES.into_iter().enumerate() {
            let to: Vec<NodeId> = NODES.into_iter().filter(|node| *node != me).collect();
            let now = Instant::from_millis(time_ms);
            let beats = self.vigils[from].beats(&to, time_ms, now, &self.sleepers[from]);
            for (node, beat) in beats {
                let to = node.0 as usize - 1;
                if !cut.contains(&(from, to)) && !cut.contains(&(to, from)) {
                    self.vigils[to].heard(me, &beat, now, &self.sleepers[to]);
                }
            }
        }
    }

    /// How fresh the group is on that process.
    fn fresh(&self, on: usize) -> u64 {
        let vouched = self.vigils[on].vouched(self.slept[on]);
        vouched.map_or(0, |vouched| agreed(&vouched.times, &NODES))
    }
}

#[test]
fn all_three_keep_it_fresh() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    for time in [1_000, 1_100, 1_200] {
        world.round(time, &[]);
    }
    // The followers confirm a beat with their next one, and learn of each other's with the next.
    assert_eq!([world.fresh(0), world.fresh(1), world.fresh(2)], [1_200, 1_100, 1_100]);
    world.round(1_300, &[]);
    assert_eq!([world.fresh(0), world.fresh(1), world.fresh(2)], [1_300, 1_200, 1_200]);
}

#[test]
fn one_of_three_may_be_away() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    let away = [(0, 2), (1, 2)];
    for time in [1_000, 1_100, 1_200] {
        world.round(time, &away);
    }
    assert_eq!([world.fresh(0), world.fresh(1), world.fresh(2)], [1_200, 1_100, 0]);
}

#[test]
fn a_leader_alone_vouches_for_nothing() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    for time in [1_000, 1_100, 1_200] {
        world.round(time, &[]);
    }
    // Its beats still reach process 3, but nobody's reach it: the majority may have elected.
    for time in [2_000, 2_100] {
        let beats = {
            let now = Instant::from_millis(time);
            world.vigils[0].beats(&[NODES[2]], time, now, &world.sleepers[0])
        };
        let now = Instant::from_millis(time);
        world.vigils[2].heard(NODES[0], &beats[0].1, now, &world.sleepers[2]);
    }
    assert_eq!([world.fresh(0), world.fresh(2)], [1_200, 1_200]);
}

#[test]
fn who_voted_for_another_leader_confirms_nothing() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    world.round(1_000, &[]);
    world.round(1_100, &[]);
    // Process 1 was cut off; 2 has woken up and taken part in an election. Then the cut heals, and
    // only the old leader and process 3 still believe that the group sleeps.
    world.wake(1);
    for time in [2_000, 2_100, 2_200] {
        world.round(time, &[(1, 2)]);
    }
    // Process 3 still confirms: with the leader that is a majority as well.
    assert_eq!(world.fresh(2), 2_100);
    // It was in that election too, as a majority needs: now nobody confirms. What it knew when
    // it woke up stays.
    world.wake(2);
    for time in [3_000, 3_100, 3_200] {
        world.round(time, &[]);
    }
    assert_eq!([world.fresh(0), world.fresh(2)], [2_200, 2_100]);
}

#[test]
fn what_woke_up_at_its_leader_is_not_vouched_for() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    world.round(1_000, &[]);
    world.round(1_100, &[]);
    world.round(1_200, &[]);
    // Something is written: the leader wakes up before anything of it leaves.
    world.wake(0);
    world.round(1_300, &[]);
    world.round(1_400, &[]);
    // The replicas have not heard of it, and stay as fresh as they were.
    assert_eq!([world.fresh(1), world.fresh(2)], [1_100, 1_100]);
}

#[test]
fn what_was_said_before_it_slept_does_not_count() {
    let mut world = World::new();
    for time in [1_000, 1_100, 1_200] {
        world.round(time, &[]);
    }
    world.sleep(&[0, 1, 2]);
    assert_eq!([world.fresh(0), world.fresh(1), world.fresh(2)], [0, 0, 0]);
    world.round(1_300, &[]);
    assert_eq!(world.fresh(0), 1_300, "the followers' beats of that round answer its own");
    world.round(1_400, &[]);
    assert_eq!(world.fresh(1), 1_300);
}

#[test]
fn an_echo_of_an_earlier_life_is_no_confirmation() {
    let mut world = World::new();
    world.sleep(&[0, 1, 2]);
    world.round(1_000, &[]);
    world.round(1_100, &[]);
    let old = world.fresh(0);
    assert_eq!(old, 1_100);
    // The leader's process is started again; its group sleeps there no more.
    world.vigils[0] = Vigil::new(NODES[0], 999);
    world.sleepers[0] = Sleepers::default();
    world.slept[0] = Slept::default();
    for time in [2_000, 2_100] {
        world.round(time, &[]);
    }
    assert_eq!([world.fresh(1), world.fresh(2)], [1_000, 1_000]);
}

#[test]
fn a_majority_of_the_voters_counts() {
    let times = [(NodeId(1), 50), (NodeId(2), 40), (NodeId(3), 30), (NodeId(9), 90)];
    let voters = |numbers: &[u64]| numbers.iter().map(|n| NodeId(*n)).collect::<Vec<_>>();
    assert_eq!(agreed(&times, &voters(&[1])), 50);
    assert_eq!(agreed(&times, &voters(&[1, 2, 3])), 40);
    assert_eq!(agreed(&times, &voters(&[1, 2, 3, 4, 5])), 30);
    assert_eq!(agreed(&times, &voters(&[1, 4, 5])), 0, "two are not known");
    assert_eq!(agreed(&times, &[]), 0);
}
