//! Who gets what has arrived.

use quorate_consensus::engine::{Engine, EngineError, WriteBatch};
use quorate_proto::wire::command::StoreIdent;
use quorate_proto::{NodeId, StoreId};
use quorate_store::core::keys;

use super::World;
use super::nemesis::NOBODY;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::client::CLIENTS;
use crate::sim::messages::{Body, Event, Failure, Packet, Told, Transfer};
use crate::sim::placement::Asked;
use crate::sim::stamper::STAMPERS;

impl World {
    pub(super) fn packet(&mut self, event: Event) -> Result<(), (NodeId, EngineError)> {
        let Event::Packet(packet) = event else { return Ok(()) };
        let Packet { from, to, lane, .. } = *packet;
        if to.0 >= NOBODY {
            match packet.body {
                Body::Told { told: Told::Joined { store, cluster, .. }, .. } => {
                    self.has_joined(store, cluster);
                }
                Body::Told { told: Told::MemberJoined { member, data_id }, .. } => {
                    self.member_has_joined(member, data_id);
                }
                Body::Told { .. }
                | Body::Frame(_)
                | Body::Beat(_)
                | Body::Snapshot(_)
                | Body::Piece(_)
                | Body::Request(_)
                | Body::Response { .. }
                | Body::Ask { .. } => {}
            }
            return Ok(());
        }
        if to.0 > CLIENTS {
            self.deliver_to_client(*packet);
            return Ok(());
        }
        let running = self.processes.get_mut(&to).filter(|process| process.up.is_some());
        let Some(process) = running else {
            self.nobody_there(*packet);
            return Ok(());
        };
        if self.cx.now() < process.paused_until {
            let rest = process.paused_until - self.cx.now();
            self.cx.after(rest, Event::Packet(packet));
            return Ok(());
        }
        let cx = &mut self.cx;
        match packet.body {
            Body::Frame(envelopes) => process.frame(from, envelopes, cx),
            Body::Beat(incarnation) => process.beat_from(from, incarnation, cx),
            Body::Snapshot(transfer) => {
                let own = Concern::Link(from, to, lane);
                let broken = cx.net.is_cut(from, to) || (cx.net.bad && cx.chance(own, 0.1));
                let taken =
                    !broken && process.receive(from, &transfer, cx).map_err(|error| (to, error))?;
                // Its receipt may be lost as well.
                let known = taken && !(cx.net.bad && cx.chance(own, 0.1));
                self.transferred(from, *transfer, known);
            }
            Body::Piece(piece) => {
                process.heard(from, *piece, cx).map_err(|error| (to, error))?;
            }
            Body::Request(request) => process.with_role(cx, |role, host| {
                if let Some(store) = role.store_mut() {
                    store.request(from, *request, host);
                }
            }),
            Body::Ask { call, ask } => process.with_role(cx, |role, host| {
                role.asked(Asked { from, call, ask: *ask }, host);
            }),
            Body::Told { call, told } => {
                let told = process.with_role(cx, |role, host| role.told(call, told, host));
                told.map_err(|error| (to, error))?;
            }
            Body::Response { .. } => {}
        }
        Ok(())
    }

    /// Placement knows the store that comes later: its process starts.
    fn has_joined(&mut self, store: StoreId, cluster_id: u64) {
        let node = NodeId::from(store);
        // The answer may be to a store that has joined before.
        if self.known.contains(&node) {
            return;
        }
        let Some(data_id) = self.joining.take() else { return };
        self.add(node, 200 * MS);
        let mut batch = WriteBatch::new();
        let (store_id, format) = (store.0, keys::FORMAT);
        keys::put_ident(&mut batch, &StoreIdent { cluster_id, store_id, format, data_id });
        let written = self.processes[&node].disk.write_synced(batch);
        assert!(written.is_ok(), "a fresh disk can be written");
    }

    fn deliver_to_client(&mut self, packet: Packet) {
        let Packet { from, to, body, .. } = packet;
        if to.0 > STAMPERS {
            if let Body::Told { call, told } = body
                && let Some(stamper) = self.stampers.get_mut((to.0 - STAMPERS) as usize - 1)
            {
                stamper.told(from, call, &told, &mut self.cx);
            }
            return;
        }
        let client = &mut self.clients[(to.0 - CLIENTS) as usize - 1];
        match body {
            Body::Response { call, result } => client.answer(call, result, &mut self.cx),
            Body::Told { call, told } => client.told(call, told, &mut self.cx),
            Body::Frame(_)
            | Body::Beat(_)
            | Body::Snapshot(_)
            | Body::Piece(_)
            | Body::Request(_)
            | Body::Ask { .. } => {}
        }
    }

    fn transferred(&mut self, from: NodeId, transfer: Transfer, delivered: bool) {
        let Some(process) = self.processes.get_mut(&from) else { return };
        if process.lives(transfer.life) {
            process.sent(&transfer.make, delivered, &mut self.cx);
        }
    }

    /// The process is down: its system refuses connections.
    fn nobody_there(&mut self, packet: Packet) {
        let Packet { from, to, body, .. } = packet;
        match body {
            Body::Frame(_) | Body::Beat(_) => {
                if let Some(process) = self.processes.get_mut(&from)
                    && process.up.is_some()
                {
                    process.unreachable(to, &mut self.cx);
                }
            }
            Body::Snapshot(transfer) => self.transferred(from, *transfer, false),
            Body::Piece(piece) => {
                self.cx.after(0, Event::HungUp { node: from, call: piece.call });
            }
            Body::Request(request) => {
                let body = Body::Response { call: request.call, result: Err(Failure::Unreachable) };
                self.cx.send(to, from, Lane::Services, body);
            }
            Body::Ask { call, .. } => {
                let body = Body::Told { call, told: Told::NotLeader(None) };
                self.cx.send(to, from, Lane::Services, body);
            }
            Body::Response { .. } | Body::Told { .. } => {}
        }
    }
}
