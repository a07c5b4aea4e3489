//! Snapshots of one group: asking for one to be sent, and installing one that came.
//!
//! The data travels apart from Raft: it lies in a staged file once the message arrives here.
//! raft-rs sees only index, term and configuration. From the moment it accepts a snapshot until
//! the state machine has installed it, the group takes no messages and does not tick; what it
//! would miss is sent again.

use bytes::Bytes;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, PeerId, Term};
use raft::eraftpb::Message;
use raft::prelude::Ready;
use raft::{ProgressState, Storage};

use super::{Group, message};
use crate::engine::WriteBatch;
use crate::shard::{Effects, Install, MakeSnapshot, Member, Refusal, Reply};

/// A received snapshot: the name of the staged file and the state machine's description.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) id: String,
    pub(crate) state: Bytes,
}

/// A snapshot that is being installed, and what waits for it.
pub(crate) struct Installing {
    id: String,
    index: u64,
    term: u64,
    ready: u64,
    held: Vec<Envelope>,
}

impl<T> Group<T> {
    /// True from the acceptance of a snapshot until it is installed.
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some() || self.node.raft.raft_log.unstable_snapshot().is_some()
    }

    /// A message that came with a staged file has been stepped: keeps the file if raft-rs took
    /// the snapshot, otherwise asks for its removal.
    pub(super) fn keep_or_discard(&mut self, staged: Staged, effects: &mut Effects<T>) {
        let accepted = self.node.raft.raft_log.unstable_snapshot().is_some();
        if accepted && self.incoming.is_none() {
            self.incoming = Some(staged);
            return;
        }
        // The same snapshot may come twice; its file must stay while it is being installed.
        let incoming = self.incoming.as_ref().map(|incoming| &incoming.id);
        let installing = self.installing.as_ref().map(|installing| &installing.id);
        if incoming != Some(&staged.id) && installing != Some(&staged.id) {
            effects.discards.push(staged.id);
        }
    }

    pub(super) fn begin_install(
        &mut self,
        mut ready: Ready,
        held: Vec<Message>,
        effects: &mut Effects<T>,
    ) {
        let meta = ready.snapshot().get_metadata();
        let (index, term, conf) = (meta.index, meta.term, meta.get_conf_state().clone());
        let hard = ready.hs().cloned().unwrap_or_else(|| {
            self.node.store().initial_state().map(|state| state.hard_state).unwrap_or_default()
        });
        let mut batch = WriteBatch::new();
        self.node.mut_store().restore(index, term, conf, hard, &mut batch);
        // No messages are taken once a snapshot is accepted, so there is nothing behind it; if
        // there were, it would have to be in the log before raft-rs believes that it is.
        self.node.mut_store().append(ready.take_entries(), &mut batch);
        let number = ready.number();
        self.node.advance_append_async(ready);
        let Staged { id, state } = self.incoming.take().unwrap_or_default();
        let group = self.id;
        self.installing = Some(Box::new(Installing {
            id: id.clone(),
            index,
            term,
            ready: number,
            held: held.into_iter().map(|message| message::pack(group, message)).collect(),
        }));
        effects.installs.push(Install {
            group,
            id,
            index: LogIndex(index),
            term: Term(term),
            state,
            batch,
        });
    }

    /// The snapshot under way is installed.
    pub(crate) fn installed(&mut self, index: u64, members: Vec<Member>, effects: &mut Effects<T>) {
        let Some(installing) = self.installing.take_if(|installing| installing.index == index)
        else {
            return;
        };
        self.members = members;
        self.callers.clear();
        self.node.mut_store().set_applied(index, installing.term);
        self.node.on_persist_ready(installing.ready);
        self.node.advance_apply_to(index);
        self.view.set_applied(LogIndex(index));
        self.view.set_committed(LogIndex(index));
        self.note_fresh();
        for envelope in installing.held {
            self.send(envelope, effects);
        }
        self.proposals.drain_proposed(|token| {
            effects.replies.push((token, Reply::Refused(Refusal::Undetermined)));
        });
        self.set_timeout();
        self.wake();
    }

    /// raft-rs wants a snapshot sent.
    pub(super) fn ask_for_snapshot(&self, message: &Message, effects: &mut Effects<T>) {
        if let Some(node) = self.node_of(message.to) {
            effects.snapshots.push(MakeSnapshot {
                group: self.id,
                from: self.peer,
                to: PeerId(message.to),
                node,
                term: Term(message.term),
                at_least: LogIndex(message.get_snapshot().get_metadata().index),
            });
        }
    }

    /// True while raft-rs waits for the outcome of that snapshot.
    pub(crate) fn wants_snapshot(&self, make: &MakeSnapshot) -> bool {
        let progress = self.node.raft.prs().get(make.to.0);
        self.is_leader()
            && self.node.raft.term == make.term.0
            && progress.is_some_and(|progress| progress.state == ProgressState::Snapshot)
    }

    /// The data of a snapshot for `to` was read.
    pub(crate) fn snapshot_taken(&mut self, to: PeerId, index: LogIndex) {
        self.transfers.insert(to.0, index.0);
    }

    /// A snapshot for `to` was delivered, or lost.
    pub(crate) fn snapshot_sent(&mut self, to: PeerId, delivered: bool) {
        if !delivered {
            self.transfers.remove(&to.0);
        }
        let status =
            if delivered { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }
}
