//! A store and placement: joining, reports, orders, ids for splits, strangers.
//!
//! The counterpart of the production store's stream to placement and of its splitter.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::engine::{Engine, EngineError, WriteBatch};
use quorate_consensus::shard;
use quorate_consensus::time::Instant;
use quorate_placement::core::command::Joining;
use quorate_proto::wire::command::StoreIdent;
use quorate_proto::wire::placement::StoreReport;
use quorate_proto::{NodeId, PeerId, Region, RegionId, StoreId};
use quorate_store::core::{Admitted, keys, split, unled};

use super::StoreRole;
use super::serving::Waiting;
use crate::sim::agenda::MS;
use crate::sim::chance::Lane;
use crate::sim::messages::{Ask, Body, Told};
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// How long placement may take to answer.
const PATIENCE: u64 = 1_000 * MS;
/// How long a region is left alone once a split of it has begun.
const SPLIT_PATIENCE: u64 = 3_000 * MS;
/// Duties between two reports.
const REPORT_EVERY: u64 = 4;

/// What a store wanted of placement.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    Join,
    Report,
    Split {
        region: RegionId,
        keys: Vec<Bytes>,
    },
    Stranger(PeerId),
    /// Is there still a replica of it here?
    Lost(RegionId),
}

impl StoreRole {
    pub(super) fn ask(&mut self, ask: Ask, purpose: Purpose, host: &mut Host<'_>) {
        let call = self.number();
        self.asked.insert(call, (purpose, host.now));
        let body = Body::Ask { call, ask: Box::new(ask) };
        host.cx.send(host.node, self.placement, Lane::Services, body);
    }

    fn rotate(&mut self, hint: Option<NodeId>, host: &Host<'_>) {
        let to = hint.unwrap_or_else(|| host.cx.next_member(self.placement));
        if to != self.placement {
            // Another one has heard nothing yet.
            self.placement = to;
            self.reporter.restart();
        }
    }

    /// Every 50 ms.
    pub(crate) fn duty(&mut self, host: &mut Host<'_>) {
        self.duties += 1;
        let now = host.now;
        host.cx.checks.remains(host.node, &self.directory, now);
        let late = |since: Instant, patience: u64| now.0.saturating_sub(since.0) >= patience;
        let overdue: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, (_, since))| late(*since, PATIENCE))
            .map(|(call, _)| *call)
            .collect();
        for call in overdue {
            self.rotate(None, host);
            if let Some((Purpose::Report, _)) = self.asked.remove(&call) {
                self.reporter.restart();
            }
        }
        self.splitting.retain(|_, since| !late(*since, SPLIT_PATIENCE));
        let is_joining = self.asked.values().any(|(purpose, _)| matches!(purpose, Purpose::Join));
        if !self.joined || !self.hosting {
            let first = self.known || host.cx.joined + 1 == self.id.0;
            if !is_joining && first && self.duties.is_multiple_of(4) {
                let ask = Ask::Join(joining(
                    self.known.then_some(self.id),
                    self.data_id,
                    self.incarnation,
                ));
                self.ask(ask, Purpose::Join, host);
            }
        } else {
            self.report(host);
        }
        if self.duties.is_multiple_of(3) {
            self.split_what_has_grown(host);
        }
        if self.duties.is_multiple_of(20) {
            self.look_for_lost(host);
            if host.cx.is(Mutant::RollbackWithoutProof) {
                self.lose_patience(host);
            }
        }
    }

    fn report(&mut self, host: &mut Host<'_>) {
        let waits = self.asked.values().any(|(purpose, _)| matches!(purpose, Purpose::Report));
        if waits || !(self.nudged || self.duties.is_multiple_of(REPORT_EVERY)) {
            return;
        }
        self.nudged = false;
        self.sequence += 1;
        let mut regions = self.reporter.report(&self.directory, host.now);
        if host.cx.is(Mutant::CommitBeforeEverywhere) {
            let merging = regions.reports.iter_mut().filter_map(|report| report.merging.as_mut());
            merging.for_each(|merging| merging.everywhere = true);
        }
        let unknown = std::mem::take(&mut self.unknown).into_iter();
        let unknown: Vec<_> = unknown.filter_map(|id| self.directory.get(id)).collect();
        regions.unled = unknown.iter().filter_map(|local| unled(local)).collect();
        if host.cx.is(Mutant::HostedUntold) {
            regions.hosted.clear();
        }
        if host.cx.is(Mutant::UnknownUntold) {
            regions.unled.clear();
        }
        let has = if host.cx.is(Mutant::EmptyReported) { 0 } else { self.directory.len() };
        let report = StoreReport {
            cluster_id: 7,
            store_id: self.id.0,
            incarnation: self.incarnation,
            region_count: has as u32,
            known_version: quorate_proto::limits::KNOWN_VERSION,
            regions: regions.reports,
            full: regions.full,
            unled: regions.unled,
            hosted: regions.hosted,
            sequence: self.sequence,
            ..StoreReport::default()
        };
        self.ask(Ask::Report(report), Purpose::Report, host);
    }

    fn split_what_has_grown(&mut self, host: &mut Host<'_>) {
        let options = host.cx.knobs.split();
        let due: Vec<_> = self
            .directory
            .all()
            .into_iter()
            .filter(|local| !self.splitting.contains_key(&local.id()))
            .filter(|local| split::due(local, &options))
            .collect();
        for local in due {
            let Some(region) = local.region() else { continue };
            match split::check(host.disk, &local, &options) {
                Ok(Some(plan)) => self.begin_split(&region, plan.split_keys, host),
                Ok(None) => {}
                Err(error) => {
                    let node = host.node;
                    host.cx.checks.fail(|| format!("{node} cannot measure: {error}"));
                }
            }
        }
    }

    pub(super) fn begin_split(
        &mut self,
        region: &Arc<Region>,
        keys: Vec<Bytes>,
        host: &mut Host<'_>,
    ) {
        let Ok(keys) = split::requested(region, keys) else { return };
        self.splitting.insert(region.id, host.now);
        let ask = Ask::SplitIds { region: region.as_ref().clone(), count: keys.len() };
        self.ask(ask, Purpose::Split { region: region.id, keys }, host);
    }

    /// Placement answers, or (call 0) sends orders of its own accord.
    pub(crate) fn told(
        &mut self,
        call: u64,
        told: Told,
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        let purpose = match self.asked.remove(&call) {
            Some((purpose, _)) => Some(purpose),
            None if call == 0 => None,
            // Too late.
            None => return Ok(()),
        };
        match (purpose, told) {
            (purpose, Told::NotLeader(hint)) => {
                self.rotate(hint, host);
                if matches!(purpose, Some(Purpose::Report)) {
                    self.reporter.restart();
                }
            }
            (Some(Purpose::Join), Told::Joined { store, regions, cluster }) => {
                self.join(store, cluster, regions, host)?;
            }
            (Some(Purpose::Report) | None, Told::Orders(orders)) => {
                if orders.time_ms > 0 {
                    self.time = (orders.time_ms, host.now);
                }
                for order in orders.orders {
                    self.order(order, host);
                }
            }
            (Some(Purpose::Report), Told::Refused(_)) => {
                self.reporter.restart();
                self.joined = false;
            }
            (Some(Purpose::Split { region, keys }), Told::Ids(ids)) => {
                let Some(local) = self.directory.get(region) else { return Ok(()) };
                let Some(region) = local.region() else { return Ok(()) };
                let id = region.id;
                let admitted = Admitted { local, region };
                let time_ms = self.time_ms(host.now);
                if let Ok(command) = split::command(&admitted, keys, ids, time_ms) {
                    let token = self.token(Waiting::Split(id));
                    host.mail.push(shard::Event::Propose {
                        group: id,
                        command,
                        token,
                        suspends_lease: true,
                    });
                }
            }
            (Some(Purpose::Stranger(peer)), Told::Region(Some((region, _)))) => {
                self.welcome(&region, peer, host);
            }
            (Some(Purpose::Lost(_)), Told::Region(Some((region, _)))) => {
                self.is_lost(&region, host);
            }
            (Some(Purpose::Lost(region)), Told::Region(None)) => {
                self.nudged = true;
                self.unknown.insert(region);
            }
            (Some(Purpose::Join), Told::Refused(_)) if host.cx.checks.lives.is_out(self.id) => {
                host.end();
            }
            (Some(Purpose::Join), Told::Refused(words)) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} may not join: {words}"));
            }
            (
                _,
                Told::Joined { .. }
                | Told::Orders(_)
                | Told::Ids(_)
                | Told::Timestamp(_)
                | Told::MemberJoined { .. }
                | Told::NoMember(_)
                | Told::Region(_)
                | Told::Done
                | Told::Refused(_)
                | Told::Undetermined,
            ) => {}
        }
        Ok(())
    }

    fn join(
        &mut self,
        store: StoreId,
        cluster_id: u64,
        regions: Option<Vec<Region>>,
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        let id = self.id;
        if store != id {
            host.cx.checks.fail(|| format!("{id} joined as {store}"));
        }
        if !self.known {
            let mut batch = WriteBatch::new();
            let (store_id, format) = (id.0, keys::FORMAT);
            let ident = StoreIdent { cluster_id, store_id, format, data_id: self.data_id };
            keys::put_ident(&mut batch, &ident);
            host.disk.write_synced(batch)?;
            self.known = true;
            host.cx.joined = host.cx.joined.max(id.0);
        }
        self.joined = true;
        if self.hosting {
            return Ok(());
        }
        let Some(regions) = regions else { return Ok(()) };
        let mine = regions.into_iter().filter(|region| region.peer_on(id).is_some()).collect();
        match self.applier.bootstrap(mine) {
            Ok(groups) => {
                let create = |group| shard::Event::Create(Box::new(group));
                host.mail.extend(groups.into_iter().map(create));
                self.hosting = true;
                self.look_around(host);
            }
            Err(error) => host.cx.checks.fail(|| format!("{id} cannot bootstrap: {error}")),
        }
        Ok(())
    }
}

/// What a store says when it joins.
pub(crate) fn joining(store: Option<StoreId>, data_id: u64, incarnation: u64) -> Joining {
    let address = format!("d{data_id}:1");
    Joining { cluster_id: 0, store, address, incarnation, data_id, ..Joining::default() }
}
