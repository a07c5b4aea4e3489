//! Whatever comes from the network, nothing panics.
//!
//! One process of a group of three (a follower, a candidate, a leader, whatever it becomes) gets
//! messages whose numbers are drawn from around its state and from the edges of what fits.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_consensus::engine::{Engine, MemoryEngine};
use quorate_consensus::shard::{Effects, Event, RaftOptions};
use quorate_consensus::time::Instant;
use quorate_proto::wire::peer::{ConfState, Entry, Envelope, SnapshotMeta};
use quorate_proto::{NodeId, RegionId};

use crate::host::{Host, framed};

#[derive(Debug, Clone)]
enum Step {
    Message(Box<Envelope>),
    Tick,
    Collect,
    Persisted,
    Installed,
    Propose,
    Change(bool),
    Read,
    Transfer,
    Sent(bool),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => 0..16u64,
        1 => Just(u64::MAX),
        1 => Just(1 << 62),
        1 => Just((1 << 62) + 1),
    ]
}

fn term() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 5..9u64, 1 => number()]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let loose = vec((0..4u32, term(), number()), 0..4).prop_map(|entries| {
        let entry = |(kind, term, index)| Entry { kind, term, index, ..Entry::default() };
        entries.into_iter().map(entry).collect()
    });
    let in_order = (4..12u64, 5..8u64, 0..5u64).prop_map(|(first, term, count)| {
        let entry = |index| Entry { term, index, data: framed("x"), ..Entry::default() };
        (first..first + count).map(entry).collect()
    });
    prop_oneof![1 => loose, 3 => in_order]
}

fn configuration() -> impl Strategy<Value = ConfState> {
    let ids = || vec(0..5u64, 0..4);
    let loose = (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(voters, learners, voters_outgoing, learners_next, auto_leave)| ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        },
    );
    let plain = Just(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
    prop_oneof![3 => loose, 1 => plain]
}

fn snapshot() -> impl Strategy<Value = Option<SnapshotMeta>> {
    let name = prop_oneof![4 => "[a-c]", 1 => Just("../x".to_owned()), 1 => Just("y".repeat(150))];
    let meta = (name, number(), term(), option::weighted(0.9, configuration())).prop_map(
        |(id, index, term, conf)| SnapshotMeta { id, index, term, conf, state: Bytes::new() },
    );
    option::weighted(0.3, meta)
}

prop_compose! {
    fn envelope()(
        kind in prop_oneof![4 => 0..20u32, 1 => 99..103u32],
        (from_peer, to_peer) in (0..5u64, prop_oneof![9 => Just(1u64), 1 => 0..4u64]),
        (term, log_term) in (term(), term()),
        (index, commit, commit_term, reject_hint) in (number(), number(), term(), number()),
        (reject, request_snapshot) in (any::<bool>(), prop_oneof![5 => Just(0), 1 => number()]),
        priority in prop_oneof![5 => Just(0i64), 1 => any::<i64>()],
        context in prop_oneof![
            3 => Just(Bytes::new()),
            1 => Just(Bytes::from_static(b"CampaignTransfer")),
            1 => vec(any::<u8>(), 0..30).prop_map(Bytes::from),
        ],
        (entries, snapshot) in (entries(), snapshot()),
        in_line in any::<bool>(),
    ) -> Envelope {
        // Often the entries follow the index they claim to follow.
        let before = entries.first().map(|entry| entry.index.saturating_sub(1));
        let index = before.filter(|_| in_line).unwrap_or(index);
        let entries = if matches!(kind, 3 | 15 | 16) { entries } else { Vec::new() };
        let entries = if kind == 15 || kind == 16 { entries.into_iter().take(1).collect() } else { entries };
        let term = if kind == 15 { 0 } else { term };
        Envelope {
            group: 1, from_peer, to_peer, kind, term, log_term, index, commit, commit_term, reject,
            reject_hint, request_snapshot, priority, context, entries, snapshot,
            region: None, safe_truncate: index, fresh_ms: index, fresh_commit: commit, merged_into: 0,
            applied: commit,
        }
    }
}

/// A snapshot that would be taken, were it not for its configuration.
fn likely_snapshot() -> impl Strategy<Value = Envelope> {
    (6..9u64, 6..16u64, configuration()).prop_map(|(term, index, conf)| Envelope {
        group: 1,
        from_peer: 2,
        to_peer: 1,
        kind: 7,
        term,
        snapshot: Some(SnapshotMeta {
            id: "d".into(),
            index,
            term: 6,
            conf: Some(conf),
            state: Bytes::new(),
        }),
        ..Envelope::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => likely_snapshot().prop_map(|envelope| Step::Message(Box::new(envelope))),
        16 => envelope().prop_map(|envelope| Step::Message(Box::new(envelope))),
        6 => Just(Step::Tick),
        8 => Just(Step::Collect),
        6 => Just(Step::Persisted),
        2 => Just(Step::Installed),
        2 => Just(Step::Propose),
        2 => any::<bool>().prop_map(Step::Change),
        2 => Just(Step::Read),
        1 => Just(Step::Transfer),
        1 => any::<bool>().prop_map(Step::Sent),
    ]
}

/// The shard under test with what its shell has in hand.
struct Subject {
    host: Host,
    shown: Effects<u64>,
    now: Instant,
}

impl Subject {
    fn new() -> Self {
        let now = Instant::from_millis(10_000);
        let options =
            RaftOptions { sleep_after_ticks: 3, truncate_entries: 2, ..RaftOptions::default() };
        let mut host = Host::start(1, &options, MemoryEngine::new(), 1, now);
        let three = crate::host::members(&[1, 2, 3].into());
        let new = host.open(1, 1, three, false).unwrap();
        host.shard.step(Event::Create(Box::new(new)), now);
        Self { host, shown: Effects::default(), now }
    }

    fn event(&mut self, event: Event<u64>) {
        self.host.shard.step(event, self.now);
    }

    fn run(&mut self, step: Step) {
        let group = RegionId(1);
        match step {
            Step::Message(envelope) => {
                self.event(Event::Message { from: NodeId(envelope.from_peer), envelope });
            }
            Step::Tick => {
                self.now = self.now + std::time::Duration::from_millis(100);
                self.event(Event::Tick);
            }
            Step::Collect => self.collect(),
            Step::Persisted => {
                if let Some(persist) = self.shown.persist.take() {
                    self.host.engine.write_synced(persist.batch).unwrap();
                    self.host.shard.persisted(persist.number);
                }
            }
            Step::Installed => {
                for install in std::mem::take(&mut self.shown.installs) {
                    let hosted = self.host.groups.get_mut(&1).unwrap();
                    hosted.applied.index = install.index.0;
                    hosted.applied.term = install.term.0;
                    self.host.engine.write_synced(install.batch).unwrap();
                    let members = crate::host::members(&[1, 2, 3].into());
                    self.event(Event::Installed { group, index: install.index, members });
                }
            }
            Step::Propose => {
                let command = framed("x");
                self.event(Event::Propose { group, command, token: 0, suspends_lease: false });
            }
            Step::Change(joint) => {
                let wanted = if joint { "1,2d,3d" } else { "1,2,3,4l" };
                let members = crate::host::parse_members(wanted);
                let command = framed("=1:");
                self.event(Event::ChangeMembers { group, members, command, token: 0 });
            }
            Step::Read => self.event(Event::Read { group, token: 0 }),
            Step::Transfer => self.event(Event::TransferLeader { group, to: NodeId(2) }),
            Step::Sent(delivered) => {
                for make in std::mem::take(&mut self.shown.snapshots) {
                    self.event(Event::SnapshotSent { group, to: make.to, delivered });
                }
            }
        }
    }

    fn collect(&mut self) {
        let mut effects = self.host.shard.collect(self.now);
        for task in std::mem::take(&mut effects.apply) {
            let group = task.group;
            let mut index = self.host.groups[&1].applied.index;
            let mut term = quorate_proto::Term(0);
            for entry in &task.entries {
                assert_eq!(entry.index.0, index + 1, "entries come without a gap");
                (index, term) = (entry.index.0, entry.term);
            }
            self.host.groups.get_mut(&1).unwrap().applied.index = index;
            self.event(Event::Applied { group, index: quorate_proto::LogIndex(index), term });
        }
        if let Some(persist) = effects.persist {
            assert!(self.shown.persist.is_none(), "one write at a time");
            self.shown.persist = Some(persist);
        }
        self.shown.installs.extend(effects.installs);
        self.shown.snapshots.extend(effects.snapshots);
        assert!(self.host.shard.take_failure().is_none(), "garbage is no damage of the disk");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_from_the_network_panics_nobody(
        quiet in 0..10usize,
        steps in vec(step(), 1..80),
    ) {
        let mut subject = Subject::new();
        for _ in 0..quiet {
            subject.run(Step::Tick);
            subject.run(Step::Collect);
            subject.run(Step::Persisted);
        }
        for step in steps {
            subject.run(step);
        }
    }
}
