//! How operators go on in a model cluster: learner, copy, swap, removal, each in its time.

use std::time::Duration;

use quorate_placement::core::operators::Goal;
use quorate_proto::{Peer, PeerId, RegionId, Role};

use super::model::{MIB, Model};

impl Model {
    pub fn advance(&mut self) {
        let due: Vec<RegionId> = self
            .running
            .iter()
            .filter(|(_, running)| running.next <= self.now)
            .map(|(region, _)| *region)
            .collect();
        for id in due {
            let mut running = self.running.remove(&id).unwrap();
            let bytes = self.truth[&id].bytes;
            match self.take_step(id, &running.goal, running.done) {
                false => {}
                true => {
                    // Copying takes its time: 50 MiB a second, beside what each step takes.
                    let copying = if running.done == 0 { bytes / (50 * MIB / 1_000) } else { 0 };
                    running.done += 1;
                    let wait = 300 + copying + self.draw(700);
                    running.next = self.now + Duration::from_millis(wait);
                    self.running.insert(id, running);
                }
            }
        }
    }

    /// The next step of an operator; false once it was the last one.
    fn take_step(&mut self, id: RegionId, goal: &Goal, done: usize) -> bool {
        self.next_peer += 1;
        let next_peer = PeerId(self.next_peer);
        let dead = self.dead.clone();
        let truth = self.truth.get_mut(&id).unwrap();
        truth.changed = true;
        match (goal, done) {
            (Goal::TransferLeader { from, to }, _) => {
                if truth.leader == *from {
                    assert!(truth.region.peer_on(*to).is_some_and(|p| p.role == Role::Voter));
                    truth.leader = *to;
                    truth.term += 1;
                }
                false
            }
            (Goal::MoveReplica { to, .. }, 0) => {
                let peer = Peer { id: next_peer, store: *to, role: Role::Learner };
                truth.region.peers.push(peer);
                truth.region.epoch.conf_ver += 1;
                truth.pending.push(next_peer);
                true
            }
            (Goal::MoveReplica { from, to }, 1) => {
                truth.pending.clear();
                if truth.leader == *from {
                    let voters = truth.region.peers.iter().filter(|peer| {
                        peer.role == Role::Voter
                            && peer.store != *from
                            && !dead.contains(&peer.store)
                    });
                    truth.leader = voters.map(|peer| peer.store).next().unwrap();
                    truth.term += 1;
                }
                for peer in &mut truth.region.peers {
                    if peer.store == *from {
                        peer.role = Role::Learner;
                    } else if peer.store == *to {
                        peer.role = Role::Voter;
                    }
                }
                truth.region.epoch.conf_ver += 2;
                true
            }
            (Goal::MoveReplica { from, .. }, _) => {
                truth.region.peers.retain(|peer| peer.store != *from);
                truth.region.epoch.conf_ver += 1;
                false
            }
            (goal, _) => panic!("the model does not know {goal}"),
        }
    }
}
