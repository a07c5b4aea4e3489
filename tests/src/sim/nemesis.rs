//! Trouble: crashes, pauses, partitions, failing disks, leadership and splits at bad moments.

use quorate_consensus::engine::EngineError;
use quorate_consensus::shard;
use quorate_proto::wire::placement::SplitIds;
use quorate_proto::{NodeId, StoreId};

use super::agenda::MS;
use super::client::key;
use super::messages::Event;
use super::world::World;

impl World {
    /// One deed, then the next is planned.
    pub(super) fn nemesis(&mut self) -> Result<(), (NodeId, EngineError)> {
        if !self.cx.net.bad {
            return Ok(());
        }
        let next = self.cx.within(self.cx.knobs.nemesis);
        self.cx.after(next, Event::Nemesis);
        let nodes: Vec<NodeId> = self.processes.keys().copied().collect();
        let victim = nodes[self.cx.within((0, nodes.len() as u64 - 1)) as usize];
        let other = nodes[self.cx.within((0, nodes.len() as u64 - 1)) as usize];
        match self.cx.within((0, 9)) {
            0 | 1 => {
                let down = self.cx.within((5 * MS, 2_500 * MS));
                self.kill(victim, down);
            }
            2 => {
                let pause = self.cx.within((50 * MS, 2_000 * MS));
                self.cx.note(format_args!("{victim} is paused for {} ms", pause / MS));
                let until = self.cx.now() + pause;
                if let Some(process) = self.processes.get_mut(&victim) {
                    process.paused_until = process.paused_until.max(until);
                }
            }
            3 => {
                self.cx.note(format_args!("nothing gets from {victim} to {other}"));
                self.cx.net.cut(victim, other);
            }
            4 => {
                self.cx.note(format_args!("{victim} is cut off"));
                for other in nodes {
                    self.cx.net.cut(victim, other);
                    self.cx.net.cut(other, victim);
                }
            }
            5 | 6 => {
                self.cx.note(format_args!("all links are up"));
                self.cx.net.heal();
            }
            7 => self.transfer(),
            _ => self.split_somewhere(),
        }
        Ok(())
    }

    /// Kills a process; it starts again after `down`.
    pub(super) fn kill(&mut self, node: NodeId, down: u64) {
        let Some(process) = self.processes.get_mut(&node) else { return };
        if process.up.is_some() {
            process.crash(&mut self.cx);
            self.cx.after(down, Event::Start(node));
        }
    }

    /// Leadership of some region goes elsewhere.
    fn transfer(&mut self) {
        let at = key(self.cx.within((0, self.cx.knobs.keys - 1)));
        let Some(region) = self.cx.checks.region_of(&at) else { return };
        let to = region.peers[self.cx.within((0, region.peers.len() as u64 - 1)) as usize].store;
        let group = region.id;
        self.on_leader(group, |process, cx| {
            process.mail(shard::Event::TransferLeader { group, to: to.into() }, cx);
        });
    }

    /// Some region splits, with ids from nowhere.
    fn split_somewhere(&mut self) {
        let at = key(self.cx.within((0, self.cx.knobs.keys - 1)));
        let Some(region) = self.cx.checks.region_of(&at) else { return };
        if !region.range.can_split_at(&at) || self.cx.checks.regions().count() > 30 {
            return;
        }
        let mut id = || {
            self.next_id += 1;
            self.next_id
        };
        let ids =
            SplitIds { region_id: id(), peer_ids: region.peers.iter().map(|_| id()).collect() };
        let group = region.id;
        self.on_leader(group, |process, cx| {
            process.with_role(cx, |role, host| {
                if let Some(store) = role.store_mut() {
                    store.split(group, vec![at], vec![ids], host);
                }
            });
        });
    }

    /// Does something on the store that believes to lead a region.
    pub(super) fn on_leader(
        &mut self,
        group: quorate_proto::RegionId,
        act: impl FnOnce(&mut super::process::Process, &mut super::cx::Cx),
    ) {
        let leads = |process: &&mut super::process::Process| {
            let store = process.up.as_ref().and_then(|up| up.role.store());
            let local = store.and_then(|store| store.directory.get(group));
            local.is_some_and(|local| local.view().is_leader())
        };
        let now = self.cx.now();
        let running = |process: &&mut super::process::Process| process.paused_until <= now;
        if let Some(process) = self.processes.values_mut().filter(running).find(leads) {
            act(process, &mut self.cx);
        }
    }

    /// The store ids of this world.
    pub(super) fn stores(&self) -> impl Iterator<Item = StoreId> {
        (1..=self.cx.knobs.stores).map(StoreId)
    }
}
