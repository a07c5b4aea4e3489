//! The production shell: worker threads, streams between processes, snapshots.
//!
//! A [`Node`] runs one shard on each raft worker, against the real engine, network and clock. It
//! decides nothing; what it adds is order: effects run in the order of the fields of
//! [`Effects`](crate::shard::Effects), one write at a time for each worker.

mod api;
mod attempt;
mod background;
mod beats;
pub mod clock;
mod counters;
mod guard;
mod links;
pub mod listen;
mod logger;
mod mailbox;
mod outbox;
mod receive;
mod service;
mod stage;
mod transmit;
mod usage;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::limits::MAX_FRAME_BYTES;
use quorate_proto::wire::peer::peer_server::PeerServer;
use quorate_proto::{NodeId, PeerId, RegionId};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use api::{
    Addresses, Installed, Machine, Outcome, Progress, Replies, SnapshotProgress, SnapshotSource,
};
pub use counters::{Counter, Counters};
pub use logger::raft_logger;
pub use service::PeerService;
pub use usage::usage;

pub use crate::transfer::SnapshotOptions;

use crate::engine::{Engine, EngineError};
use crate::shard::{Event, Member, NewGroup, RaftOptions, Shard};
use crate::sleepers::Sleepers;
use crate::view::Slept;
use crate::vigil::Vouched;
use beats::{Beats, send_beats};
use links::{Identity, Links};
use mailbox::{Mailbox, Mailboxes};
use receive::Receiver;
use transmit::Transmitter;
use worker::{Pulse, Worker};

/// How a node runs.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// This process.
    pub node: NodeId,
    /// The cluster it belongs to; others are refused.
    pub cluster_id: u64,
    /// Drawn anew at every start.
    pub incarnation: u64,
    /// Raft workers (threads). One for up to four cores is right.
    pub workers: usize,
    /// Bytes of commands, and as many of messages with entries, that may wait for one worker; beyond,
    /// commands are refused as busy and such messages dropped (they are sent again). Messages without
    /// entries have as much room again, and what the worker has just taken is beside all of that: in
    /// the worst case six times as much.
    pub mailbox_bytes: usize,
    /// How the groups behave.
    pub raft: RaftOptions,
    /// How snapshots are sent and received.
    pub snapshots: SnapshotOptions,
}

/// What [`NodeOptions::mailbox_bytes`] is where nobody says otherwise: a second of a disk or
/// so.
pub const MAILBOX_BYTES: usize = 64 << 20;

/// The groups of one process, running.
pub struct Node<T> {
    mailboxes: Arc<Mailboxes<T>>,
    links: Arc<Links>,
    receiver: Arc<Receiver>,
    transmitter: Arc<Transmitter>,
    beats: Arc<Beats>,
    identity: Identity,
    counters: Arc<Counters>,
    pulses: Vec<Arc<Pulse>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    failed: watch::Receiver<Option<Arc<EngineError>>>,
}

impl<T: Send + 'static> Node<T> {
    /// Starts workers and links. Groups are opened on the workers.
    ///
    /// # Errors
    /// Threads that cannot be started.
    #[allow(clippy::too_many_arguments)]
    pub fn start<M: Machine<Token = T>>(
        options: NodeOptions,
        engine: Arc<dyn Engine>,
        machine: M,
        replies: Arc<dyn Replies<T>>,
        addresses: Arc<dyn Addresses>,
        groups: Vec<NewGroup>,
        runtime: Handle,
    ) -> std::io::Result<Arc<Self>> {
        let identity = Identity {
            terms: options.raft.terms(),
            node: options.node,
            cluster_id: options.cluster_id,
            incarnation: options.incarnation,
        };
        let counters = Arc::new(Counters::default());
        let workers = options.workers.max(1);
        let mailboxes = Arc::new(Mailboxes {
            workers: (0..workers).map(|_| Arc::new(Mailbox::new(options.mailbox_bytes))).collect(),
            replies: replies.clone(),
            counters: counters.clone(),
        });
        let told = mailboxes.clone();
        let links = Arc::new(Links::new(
            identity,
            runtime.clone(),
            addresses.clone(),
            counters.clone(),
            Arc::new(move |node| told.unreachable(node)),
        ));
        let transmitter = Transmitter::new(
            &options.snapshots,
            identity,
            runtime.clone(),
            addresses,
            counters.clone(),
            engine.clone(),
            mailboxes.clone(),
        );
        let (admits, delivers) = (replies.clone(), mailboxes.clone());
        let receiver = Arc::new(Receiver::new(
            &options.snapshots,
            engine.clone(),
            Box::new(move |message| admits.admit_snapshot(message)),
            Box::new(move |from, message| delivers.message(from, message)),
            counters.clone(),
        ));
        runtime.spawn(receive::sweep(Arc::downgrade(&receiver)));
        let sleepers = Arc::new(Sleepers::default());
        let beats = Arc::new(Beats::new(identity, sleepers.clone()));
        let machine = Arc::new(Mutex::new(machine));
        let (report, failed) = watch::channel(None);
        let report = Arc::new(report);
        runtime.spawn(guard::watch_engine(Arc::downgrade(&engine), Arc::downgrade(&report)));
        let now = clock::now();
        let mut parts: Vec<Vec<NewGroup>> = (0..workers).map(|_| Vec::new()).collect();
        for group in groups {
            parts[mailboxes.worker_of(group.group)].push(group);
        }
        let mut pulses = Vec::new();
        let mut threads = Vec::new();
        for (number, groups) in parts.into_iter().enumerate() {
            let pulse = Arc::new(Pulse::default());
            pulse.at.store(now.0, Ordering::Relaxed);
            pulses.push(pulse.clone());
            let mut shard = Shard::new(
                options.raft.clone(),
                engine.clone(),
                options.incarnation,
                raft_logger(),
                now,
            );
            shard.share_sleepers(sleepers.clone());
            let mut worker = Worker {
                number,
                shard,
                mailbox: mailboxes.workers[number].clone(),
                mailboxes: mailboxes.clone(),
                engine: engine.clone(),
                machine: machine.clone(),
                replies: replies.clone(),
                links: links.clone(),
                transmitter: transmitter.clone(),
                counters: counters.clone(),
                pulse,
                tick: Duration::from_millis(options.raft.tick_ms),
            };
            let report = report.clone();
            threads.push(std::thread::Builder::new().name(format!("raft-{number}")).spawn(
                move || {
                    for group in groups {
                        worker.shard.step(Event::Create(Box::new(group)), clock::now());
                    }
                    let mailboxes = worker.mailboxes.clone();
                    // A panic leaves groups in an unknown state: as bad as an engine that fails.
                    let run = std::panic::AssertUnwindSafe(|| worker.run());
                    let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                        let during = format!("running raft worker {number}");
                        let reason = "it panicked; see the log for where".to_owned();
                        Err(EngineError::Fatal { during, reason })
                    });
                    if let Err(error) = outcome {
                        report.send_replace(Some(Arc::new(error)));
                    }
                    mailboxes.close(number);
                },
            )?);
        }
        runtime.spawn(send_beats(
            beats.clone(),
            links.clone(),
            pulses.clone(),
            move |now| replies.placement_ms(now),
            failed.clone(),
        ));
        Ok(Arc::new(Self {
            mailboxes,
            links,
            receiver,
            transmitter,
            beats,
            identity,
            counters,
            pulses,
            threads: Mutex::new(threads),
            failed,
        }))
    }

    /// Replicates a command (with its length in front). The token comes back with the applied
    /// entry, or in a refusal.
    pub fn propose(&self, group: RegionId, command: Bytes, token: T, suspends_lease: bool) {
        self.mailboxes.request(group, Event::Propose { group, command, token, suspends_lease });
    }

    /// Changes who replicates a group, by one step: `members` are all of them afterwards. The token
    /// comes back as that of a proposal does, or with [`Refusal::Members`](crate::shard::Refusal).
    pub fn change_members(&self, group: RegionId, members: Vec<Member>, command: Bytes, token: T) {
        self.mailboxes.request(group, Event::ChangeMembers { group, members, command, token });
    }

    /// Asks up to where a linearizable read must see the log applied; answered by
    /// [`Reply::ReadAt`](crate::shard::Reply) once it is.
    pub fn read(&self, group: RegionId, token: T) {
        self.mailboxes.request(group, Event::Read { group, token });
    }

    /// Renews a lease that is used and about to lapse.
    pub fn renew_lease(&self, group: RegionId) {
        self.mailboxes.hint(group, Event::RenewLease { group });
    }

    /// Offers leadership of a group to another process.
    pub fn transfer_leader(&self, group: RegionId, to: NodeId) {
        self.mailboxes.hint(group, Event::TransferLeader { group, to });
    }

    /// Hosts a group from now on.
    pub fn create(&self, group: NewGroup) {
        self.mailboxes.tell(group.group, Event::Create(Box::new(group)));
    }

    /// Stops hosting a peer and removes what is stored of it.
    pub fn destroy(&self, group: RegionId, peer: PeerId) {
        self.mailboxes.tell(group, Event::Destroy { group, peer });
    }

    /// The service that the other processes speak to; to be added to the process's server.
    pub fn peer_service(&self) -> PeerServer<PeerService<T>> {
        let service = PeerService {
            identity: self.identity,
            mailboxes: self.mailboxes.clone(),
            receiver: self.receiver.clone(),
            beats: self.beats.clone(),
        };
        PeerServer::new(service).max_decoding_message_size(MAX_FRAME_BYTES * 2)
    }

    /// What the node has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of commands and messages that wait for a worker.
    pub fn mailbox_bytes(&self) -> usize {
        self.mailboxes.bytes()
    }

    /// Processes that share a group with this one and that it does not hear.
    pub fn unheard(&self) -> BTreeSet<NodeId> {
        self.pulses.iter().flat_map(|pulse| pulse.silent.lock().clone()).collect()
    }

    /// What is known of the groups that a process leads and that sleep, for one that slept here
    /// then.
    pub fn vouched(&self, slept: Slept) -> Option<Vouched> {
        self.beats.vouched(slept)
    }

    /// Snapshots on their way from here and to here, and those that wait: for reports and metrics.
    pub fn snapshots(&self) -> Vec<SnapshotProgress> {
        let mut all = self.transmitter.list();
        all.extend(self.receiver.list());
        all
    }

    /// Groups hosted, and how many of them are awake (as of the last tick).
    pub fn group_counts(&self) -> (u64, u64) {
        self.pulses.iter().fold((0, 0), |(groups, awake), pulse| {
            (
                groups + pulse.groups.load(Ordering::Relaxed),
                awake + pulse.awake.load(Ordering::Relaxed),
            )
        })
    }

    /// Waits until the engine fails. The process must then stop: what was not durable is lost and
    /// must not be acknowledged.
    pub async fn failed(&self) -> Arc<EngineError> {
        let mut failed = self.failed.clone();
        loop {
            if let Some(error) = failed.borrow_and_update().clone() {
                return error;
            }
            if failed.changed().await.is_err() {
                // All workers have stopped as they were told to.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops the transfer of snapshots (what was received of them is kept), lets the workers finish
    /// what is queued, stops them and closes the links. Blocks; not for a thread that the runtime
    /// needs.
    pub fn shutdown(&self) {
        self.transmitter.close();
        self.receiver.close();
        self.mailboxes.stop();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        self.links.close();
    }
}
