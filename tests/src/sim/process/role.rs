//! What a process is there for: its state machine and its services.

use std::sync::Arc;

use quorate_consensus::engine::{EngineError, MemoryEngine};
use quorate_consensus::node::{Installed, Outcome, SnapshotSource};
use quorate_consensus::shard::{
    self, ApplyTask, Install, LeaderChange, Merged, NewGroup, Outgoing, Reply, Stranger,
};
use quorate_consensus::time::Instant;
use quorate_consensus::view::GroupView;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, PeerId, RegionId};

use crate::sim::chance::Concern;
use crate::sim::cx::Cx;
use crate::sim::messages::{Event, Token, Told};
use crate::sim::placement::{Asked, GROUP, MemberRole};
use crate::sim::store::StoreRole;

/// What services may do to the rest of their process and of the world.
pub(crate) struct Host<'a> {
    pub(crate) node: NodeId,
    pub(crate) life: u64,
    /// The clock of the process.
    pub(crate) now: Instant,
    pub(crate) cx: &'a mut Cx,
    pub(crate) disk: &'a MemoryEngine,
    /// For the groups of this process.
    pub(crate) mail: Vec<shard::Event<Token>>,
    /// The process stands still for so long from now on.
    pub(crate) pause: u64,
}

impl Host<'_> {
    /// The process is told that it does not belong to the cluster: it ends for good.
    pub(crate) fn end(&mut self) {
        self.cx.ended.push(self.node);
    }

    /// Goes on with a job of the services in a moment.
    pub(crate) fn job(&mut self, after: u64, job: u64) {
        let (node, life) = (self.node, self.life);
        self.cx.after(after, Event::Job { node, life, job });
    }
}

/// See the module.
pub(crate) enum Role {
    Store(Box<StoreRole>),
    Member(Box<MemberRole>),
}

impl Role {
    /// What the disk holds, and the groups to host.
    pub(crate) fn start(
        node: NodeId,
        incarnation: u64,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        if cx.is_member(node) {
            let (member, groups) = MemberRole::start(node, disk, cx)?;
            return Ok((Role::Member(Box::new(member)), groups));
        }
        let (store, groups) = StoreRole::start(node, incarnation, disk, cx)?;
        Ok((Role::Store(Box::new(store)), groups))
    }

    pub(crate) fn apply(
        &mut self,
        tasks: Vec<ApplyTask<Token>>,
        host: &mut Host<'_>,
    ) -> Result<Outcome, EngineError> {
        match self {
            Role::Store(store) => store.apply(tasks, host),
            Role::Member(member) => member.apply(tasks, host),
        }
    }

    pub(crate) fn snapshot(
        &mut self,
        group: RegionId,
    ) -> Result<Option<SnapshotSource>, EngineError> {
        match self {
            Role::Store(store) => store.applier.snapshot(group),
            Role::Member(member) => Ok(member.snapshot()),
        }
    }

    pub(crate) fn install(
        &mut self,
        install: Install,
        host: &mut Host<'_>,
    ) -> Result<Installed, EngineError> {
        match self {
            Role::Store(store) => store.install(install, host),
            Role::Member(member) => {
                let members = member.install(install, host)?;
                Ok(Installed { members, merged: Vec::new() })
            }
        }
    }

    /// Somebody says that a group is gone.
    pub(crate) fn merged(&mut self, told: Merged) -> Vec<(RegionId, PeerId)> {
        match self {
            Role::Store(store) => store.applier.merged(told).into_iter().collect(),
            Role::Member(_) => Vec::new(),
        }
    }

    /// A group is gone from here.
    pub(crate) fn destroy(
        &mut self,
        group: RegionId,
        peer: PeerId,
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        match self {
            Role::Store(store) => store.destroy(group, peer, host),
            Role::Member(_) => {
                // It was taken out of placement.
                host.end();
                Ok(())
            }
        }
    }

    pub(crate) fn admit_snapshot(&mut self, message: &Envelope) -> bool {
        match self {
            Role::Store(store) => store.admit_snapshot(message),
            Role::Member(_) => true,
        }
    }

    pub(crate) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.reply(token, reply, host),
            Role::Member(member) => member.reply(token, reply, host),
        }
    }

    pub(crate) fn leader_changed(&mut self, change: LeaderChange) {
        match self {
            Role::Store(store) => store.leader_changed(change),
            Role::Member(member) => member.leader_changed(change),
        }
    }

    pub(crate) fn stranger(&mut self, stranger: Stranger, host: &mut Host<'_>) -> Option<Outgoing> {
        match self {
            Role::Store(store) => store.stranger(stranger, host),
            Role::Member(_) => None,
        }
    }

    pub(crate) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.job(job, host),
            Role::Member(member) => member.job(job, host),
        }
    }

    pub(crate) fn duty(&mut self, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.duty(host),
            Role::Member(member) => member.duty(host),
        }
    }

    /// Somebody asks placement.
    pub(crate) fn asked(&mut self, asked: Asked, host: &mut Host<'_>) {
        match self {
            Role::Store(_) => {}
            Role::Member(member) => member.asked(asked, host),
        }
    }

    /// What is published of a group that is hosted here.
    pub(crate) fn view(&self, group: RegionId) -> Option<Arc<GroupView>> {
        match self {
            Role::Store(store) => Some(Arc::clone(store.directory.get(group)?.view())),
            Role::Member(member) => (group == GROUP).then(|| Arc::clone(&member.view)),
        }
    }

    pub(crate) fn store(&self) -> Option<&StoreRole> {
        match self {
            Role::Store(store) => Some(store),
            Role::Member(_) => None,
        }
    }

    pub(crate) fn member(&self) -> Option<&MemberRole> {
        match self {
            Role::Store(_) => None,
            Role::Member(member) => Some(member),
        }
    }

    /// Placement answers, or sends orders of its own accord.
    pub(crate) fn told(
        &mut self,
        call: u64,
        told: Told,
        host: &mut Host<'_>,
    ) -> Result<(), EngineError> {
        match self {
            Role::Store(store) => store.told(call, told, host),
            Role::Member(member) => {
                member.told(call, &told, host);
                Ok(())
            }
        }
    }

    pub(crate) fn store_mut(&mut self) -> Option<&mut StoreRole> {
        match self {
            Role::Store(store) => Some(store),
            Role::Member(_) => None,
        }
    }
}

/// A mutant: the newest pair of data is gone, and nothing says so.
pub(crate) fn lose_data(node: NodeId, disk: &MemoryEngine, cx: &mut Cx) {
    use quorate_consensus::engine::{Cf, Direction, Engine, Reader, WriteBatch};
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(bytes::Bytes::copy_from_slice(key));
        std::ops::ControlFlow::Continue(())
    };
    let scanned = disk.scan(Cf::Data, b"", b"", Direction::Forward, visit);
    if scanned.is_ok() && !keys.is_empty() {
        let at = cx.one_of(Concern::Disk(node), keys.len());
        let mut batch = WriteBatch::new();
        batch.delete(Cf::Data, keys[at].clone());
        let _ = disk.write_synced(batch);
    }
}
