//! What a process is there for: its state machine and its services.

use quorate_consensus::engine::{EngineError, MemoryEngine};
use quorate_consensus::node::{Outcome, SnapshotSource};
use quorate_consensus::shard::{
    self, ApplyTask, Install, LeaderChange, Member, NewGroup, Reply, Stranger,
};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{NodeId, RegionId};

use super::cx::Cx;
use super::member::{Asked, MEMBERS, MemberRole};
use super::messages::{Event, Token};
use super::store::StoreRole;

/// What services may do to the rest of their process and of the world.
pub(super) struct Host<'a> {
    pub(super) node: NodeId,
    pub(super) life: u64,
    /// The clock of the process.
    pub(super) now: Instant,
    pub(super) cx: &'a mut Cx,
    pub(super) disk: &'a MemoryEngine,
    /// For the groups of this process.
    pub(super) mail: Vec<shard::Event<Token>>,
}

impl Host<'_> {
    /// Goes on with a job of the services in a moment.
    pub(super) fn job(&mut self, after: u64, job: u64) {
        let (node, life) = (self.node, self.life);
        self.cx.after(after, Event::Job { node, life, job });
    }
}

/// See the module.
pub(super) enum Role {
    Store(Box<StoreRole>),
    Member(Box<MemberRole>),
}

impl Role {
    /// What the disk holds, and the groups to host.
    pub(super) fn start(
        node: NodeId,
        incarnation: u64,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        if node.0 > MEMBERS {
            let (member, groups) = MemberRole::start(node, disk, cx)?;
            return Ok((Role::Member(Box::new(member)), groups));
        }
        let (store, groups) = StoreRole::start(node, incarnation, disk, cx)?;
        Ok((Role::Store(Box::new(store)), groups))
    }

    pub(super) fn apply(
        &mut self,
        tasks: Vec<ApplyTask<Token>>,
        host: &mut Host<'_>,
    ) -> Result<Outcome, EngineError> {
        match self {
            Role::Store(store) => store.apply(tasks, host),
            Role::Member(member) => member.apply(tasks, host),
        }
    }

    pub(super) fn snapshot(
        &mut self,
        group: RegionId,
    ) -> Result<Option<SnapshotSource>, EngineError> {
        match self {
            Role::Store(store) => store.applier.snapshot(group),
            Role::Member(member) => Ok(member.snapshot()),
        }
    }

    pub(super) fn install(
        &mut self,
        install: Install,
        host: &mut Host<'_>,
    ) -> Result<Vec<Member>, EngineError> {
        match self {
            Role::Store(store) => store.install(install, host),
            Role::Member(member) => member.install(install, host),
        }
    }

    /// A group is gone from here.
    pub(super) fn destroy(&mut self, group: RegionId) -> Result<(), EngineError> {
        match self {
            Role::Store(store) => store.applier.destroy(group),
            Role::Member(_) => Ok(()),
        }
    }

    pub(super) fn admit_snapshot(&mut self, message: &Envelope) -> bool {
        match self {
            Role::Store(store) => store.admit_snapshot(message),
            Role::Member(_) => true,
        }
    }

    pub(super) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.reply(token, reply, host),
            Role::Member(member) => member.reply(token, reply, host),
        }
    }

    pub(super) fn leader_changed(&mut self, change: LeaderChange) {
        match self {
            Role::Store(store) => store.leader_changed(change),
            Role::Member(member) => member.leader_changed(change),
        }
    }

    pub(super) fn stranger(&mut self, stranger: Stranger, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.stranger(stranger, host),
            Role::Member(_) => {}
        }
    }

    pub(super) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.job(job, host),
            Role::Member(member) => member.job(job, host),
        }
    }

    pub(super) fn duty(&mut self, host: &mut Host<'_>) {
        match self {
            Role::Store(store) => store.duty(host),
            Role::Member(member) => member.duty(host),
        }
    }

    /// Somebody asks placement.
    pub(super) fn asked(&mut self, asked: Asked, host: &mut Host<'_>) {
        match self {
            Role::Store(_) => {}
            Role::Member(member) => member.asked(asked, host),
        }
    }

    pub(super) fn member(&self) -> Option<&MemberRole> {
        match self {
            Role::Store(_) => None,
            Role::Member(member) => Some(member),
        }
    }

    pub(super) fn store(&self) -> Option<&StoreRole> {
        match self {
            Role::Store(store) => Some(store),
            Role::Member(_) => None,
        }
    }

    pub(super) fn store_mut(&mut self) -> Option<&mut StoreRole> {
        match self {
            Role::Store(store) => Some(store),
            Role::Member(_) => None,
        }
    }
}

/// A mutant: the newest pair of data is gone, and nothing says so.
pub(super) fn lose_data(disk: &MemoryEngine, cx: &mut Cx) {
    use quorate_consensus::engine::{Cf, Direction, Engine, Reader, WriteBatch};
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(bytes::Bytes::copy_from_slice(key));
        std::ops::ControlFlow::Continue(())
    };
    let scanned = disk.scan(Cf::Data, b"", b"", Direction::Forward, visit);
    if scanned.is_ok() && !keys.is_empty() {
        let at = cx.within((0, keys.len() as u64 - 1)) as usize;
        let mut batch = WriteBatch::new();
        batch.delete(Cf::Data, keys[at].clone());
        let _ = disk.write_synced(batch);
    }
}
