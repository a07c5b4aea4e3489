//! What one seed chooses: the size of the world, its speeds, and what goes wrong in it.
//!
//! Each knob is drawn from a stream of its own name, so that another knob does not change it. The
//! default of each is what it was before it existed: pinned cases that do not name it stay as they
//! are.

use quorate_consensus::shard::RaftOptions;
use quorate_store::core::SplitOptions;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use super::agenda::MS;
use super::chance::{Span, pick, stream};

/// The choices of a seed. Times are in nanoseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Knobs {
    pub(crate) stores: u64,
    pub(crate) members: u64,
    pub(crate) replicas: u32,
    pub(crate) shards: usize,
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) raft: RaftOptions,
    /// A region with more keys is split.
    pub(crate) split_keys: u64,
    /// How long the bad times last.
    pub(crate) chaos: u64,
    /// Between two deeds of the nemesis.
    pub(crate) nemesis: Span,
    pub(crate) deeds: Deeds,
    pub(crate) delay: Span,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// Part of the frames that overtake others.
    pub(crate) reorder: f64,
    /// Part of the frames that come seconds late through a broken link.
    pub(crate) late: f64,
    /// Part of the frames that a broken link holds until it is whole again.
    pub(crate) held: f64,
    pub(crate) sync: Span,
    pub(crate) stall: f64,
    pub(crate) sync_failure: f64,
    pub(crate) apply: Span,
    /// Nothing is stepped while a write is under way.
    pub(crate) blocking: bool,
    /// Slowest and fastest clock, in millionths of real time.
    pub(crate) rates: Span,
    pub(crate) think: Span,
    pub(crate) deadline: u64,
    /// Part of the operations that write.
    pub(crate) writes: f64,
    /// Part of the reads that ask a follower.
    pub(crate) followers: f64,
    /// Part of the operations that ask some replica, although the leader is known.
    pub(crate) wander: f64,
    /// Part of the operations that go to the first key.
    pub(crate) hot: f64,
    /// For each store there is a client that asks it only, and for each member of placement one.
    pub(crate) sticking: bool,
    /// Part of what is applied that takes long.
    pub(crate) apply_stall: f64,
    /// Between two looks of the mover of replicas; zero: replicas stay where they are.
    pub(crate) moves: Span,
    /// Placement plans who replicates what; otherwise the mover alone does.
    pub(crate) planned: bool,
    /// Part of the removed replicas whose store is told.
    pub(crate) destroy_orders: f64,
    /// A store may be lost for good while a voter elsewhere has no data yet.
    pub(crate) hollow: bool,
    /// Part of the steps of a read after which its process stands still.
    pub(crate) pause_in_read: f64,
    /// Milliseconds of silence after which placement gives a store or a member up; its other limits
    /// are as short. Zero: all of them are longer than a world lasts.
    pub(crate) down_ms: u64,
    /// Placement begins with one member; others join, and take each other's place.
    pub(crate) growth: bool,
    pub(crate) snapshots: Snapshots,
}

/// How snapshots travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshots {
    /// A chunk ends with the record that makes it so many bytes; zero: a snapshot is one message.
    pub(crate) chunk_bytes: usize,
    /// A receiver makes what it has durable after so many bytes.
    pub(crate) checkpoint_bytes: u64,
    /// Bytes per second out of a store, and into it; zero: no limit. Members of placement, whose state
    /// is that of a whole cluster, have a hundred times as much.
    pub(crate) rate: u64,
    /// Snapshots that a process sends at once.
    pub(crate) sending: usize,
    /// Snapshots that a process receives at once.
    pub(crate) receiving: usize,
    /// How long a transfer that broke off may be gone on with.
    pub(crate) resume: u64,
    /// Part of the chunks that are damaged on their way.
    pub(crate) damage: f64,
    /// Part of the chunks with which their connection breaks.
    pub(crate) breaks: f64,
    /// Part of the chunks behind which the process dies that writes them.
    pub(crate) deaths: f64,
}

/// How often the nemesis does which deed, in relation to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Deeds {
    pub(crate) kill: u64,
    pub(crate) pause: u64,
    pub(crate) cut: u64,
    pub(crate) cut_off: u64,
    pub(crate) heal: u64,
    pub(crate) transfer: u64,
    pub(crate) placement_transfer: u64,
    pub(crate) split: u64,
    /// All processes of one kind lose power at once.
    pub(crate) blackout: u64,
    /// A leader loses all its followers while one of them could not hear it before.
    pub(crate) usurp: u64,
    /// A leader gives leadership away and hears of nobody from then on.
    pub(crate) orphan: u64,
    /// The leader of placement dies.
    pub(crate) placement_kill: u64,
    /// The leader of placement is cut off.
    pub(crate) placement_cut: u64,
    /// A store is lost for good; another one comes in its place.
    pub(crate) replace: u64,
    /// The leader of a region dies in the middle of a change of its members.
    pub(crate) joint_kill: u64,
    /// A region is merged with one of its neighbours.
    pub(crate) merge: u64,
    /// The leader of a region that is stopped for a merge, or of its target, dies or is cut off.
    pub(crate) merge_trouble: u64,
    /// The receiver or the sender of a snapshot dies, or their connection breaks.
    pub(crate) snapshot_trouble: u64,
    /// A store is asked to leave.
    pub(crate) leave: u64,
    /// Something happens to a store that leaves, or to who looks after it.
    pub(crate) leave_trouble: u64,
    /// A member of placement is lost for good, or replaced on request.
    pub(crate) member: u64,
}

impl Knobs {
    pub(crate) fn draw(seed: u64) -> Self {
        let of = |name: &str| stream(seed, name);
        let tick_ms = pick(&mut of("tick"), &[50, 100, 100]);
        // Whoever misses a few entries gets a snapshot.
        let short = of("short log").random_bool(0.4);
        let raft = RaftOptions {
            tick_ms,
            election_ticks: 600 / tick_ms as usize,
            election_stagger_ticks: 200 / tick_ms as usize,
            sleep_after_ticks: pick(&mut of("sleep"), &[0, 3, 8, 20]),
            truncate_entries: if short { 1 } else { pick(&mut of("truncate"), &[3, 10, 40]) },
            max_log_entries: if short {
                pick(&mut of("short log entries"), &[3, 8])
            } else {
                pick(&mut of("max log entries"), &[12, 60, 400])
            },
            max_log_bytes: pick(&mut of("max log bytes"), &[4_000, 1 << 20]),
            max_append_bytes: pick(&mut of("append"), &[200, 4_000, 512 * 1024]),
            max_inflight: pick(&mut of("inflight"), &[1, 4, 64]),
            entry_bytes: pick(&mut of("entry"), &[100, 256 * 1024]),
            wakes_per_tick: pick(&mut of("wakes"), &[1, 8, 1_000]),
            request_timeout_ms: pick(&mut of("request timeout"), &[1_000, 5_000]),
            ..RaftOptions::default()
        };
        let calm = of("calm").random_bool(0.15);
        let some = |name: &str, most: f64| {
            let mut rng = of(name);
            if calm || rng.random_bool(0.4) { 0.0 } else { rng.random_range(0.0..most) }
        };
        let moving = of("moving").random_bool(0.6);
        let stores = pick(&mut of("stores"), &[1, 3, 3, 3, 3, 3, 3, 4, 5]);
        let stores = if moving { stores.max(3) + of("spare").random_range(0..=2) } else { stores };
        let deed = |name: &str, weights: &[u64]| pick(&mut of(name), weights);
        let planned = of("planned").random_bool(0.5);
        let leaving = planned && moving && of("leaving").random_bool(0.7);
        let growth = planned && of("growth").random_bool(0.6);
        let down_ms = pick(&mut of("down"), &[2_500, 4_000, 7_000]);
        Self {
            stores,
            members: if growth { 1 } else { pick(&mut of("members"), &[1, 3, 3, 3]) },
            replicas: pick(&mut of("replicas"), &[1, 3, 3, 3, 5, 5]),
            shards: of("shards").random_range(1..=3),
            clients: of("clients").random_range(2..=6),
            keys: pick(&mut of("keys"), &[1, 2, 4, 12, 40, 80]),
            raft,
            split_keys: pick(&mut of("split keys"), &[3, 8, 20, 1_000]),
            chaos: of("chaos").random_range(8_000..16_000) * MS,
            nemesis: (100 * MS, pick(&mut of("nemesis"), &[500, 1_500, 3_000]) * MS),
            deeds: Deeds {
                kill: deed("kill", &[0, 1, 1, 3]),
                pause: deed("pause", &[0, 1, 1, 3]),
                cut: deed("cut", &[0, 1, 1, 3]),
                cut_off: deed("cut off", &[0, 1, 1, 3]),
                heal: 2,
                transfer: deed("transfer", &[0, 1, 1, 3]),
                placement_transfer: deed("placement transfer", &[0, 1, 1, 3]),
                split: deed("split", &[0, 1, 1, 3]),
                blackout: deed("blackout", &[0, 1, 1, 3]),
                usurp: deed("usurp", &[0, 0, 2, 6]),
                orphan: deed("orphan", &[0, 0, 2, 6]),
                placement_kill: deed("placement kill", &[0, 1, 2]),
                placement_cut: deed("placement cut", &[0, 1, 2]),
                replace: if moving { deed("replace", &[0, 1, 2]) } else { 0 },
                joint_kill: if moving { deed("joint kill", &[0, 1, 3]) } else { 0 },
                merge: deed("merge", &[0, 2, 4, 8]),
                merge_trouble: deed("merge trouble", &[0, 1, 4]),
                snapshot_trouble: deed("snapshot trouble", &[0, 4, 8]),
                leave: if leaving { deed("leave", &[1, 3, 6]) } else { 0 },
                leave_trouble: if leaving { deed("leave trouble", &[1, 3, 6]) } else { 0 },
                member: if growth { deed("member", &[0, 3, 6]) } else { 0 },
            },
            delay: pick(&mut of("delay"), &[(MS / 10, MS), (MS / 5, 5 * MS), (MS, 40 * MS)]),
            loss: some("loss", 0.08),
            duplicate: some("duplicate", 0.05),
            reorder: some("reorder", 0.2),
            late: pick(&mut of("late"), &[0.0, 0.0, 0.3]),
            held: pick(&mut of("held"), &[0.0, 0.5]),
            sync: pick(&mut of("sync"), &[(MS / 20, MS / 5), (MS / 2, 3 * MS), (MS, 30 * MS)]),
            stall: some("stall", 0.003),
            sync_failure: some("sync failure", 0.000_5),
            apply: pick(&mut of("apply"), &[(0, MS / 20), (MS / 20, 2 * MS), (MS, 25 * MS)]),
            blocking: of("blocking").random_bool(0.5),
            rates: rates(&mut of("rates")),
            think: pick(&mut of("think"), &[(0, 2 * MS), (MS, 20 * MS), (5 * MS, 150 * MS)]),
            deadline: pick(&mut of("deadline"), &[800, 3_000, 6_000]) * MS,
            writes: pick(&mut of("writes"), &[0.2, 0.5, 0.9]),
            followers: pick(&mut of("followers"), &[0.0, 0.3]),
            hot: pick(&mut of("hot"), &[0.0, 0.3, 0.7]),
            sticking: pick(&mut of("sticking"), &[false, true, true]),
            apply_stall: some("apply stall", 0.01),
            wander: pick(&mut of("wander"), &[0.0, 0.05, 0.25]),
            moves: if moving {
                (20 * MS, pick(&mut of("moves"), &[100, 400, 1_500]) * MS)
            } else {
                (0, 0)
            },
            planned,
            destroy_orders: pick(&mut of("destroy orders"), &[0.0, 0.5, 1.0]),
            hollow: of("hollow").random_bool(0.5),
            pause_in_read: if calm {
                0.0
            } else {
                pick(&mut of("pause in read"), &[0.0, 0.000_5, 0.003])
            },
            snapshots: Snapshots {
                chunk_bytes: pick(&mut of("chunk"), &[1, 1, 30, 100]),
                checkpoint_bytes: pick(&mut of("checkpoint"), &[1, 60, 1 << 20]),
                rate: pick(&mut of("rate"), &[0, 4_000, 40_000]),
                sending: pick(&mut of("sending"), &[1, 2, 2]),
                receiving: pick(&mut of("receiving"), &[1, 2, 2]),
                resume: pick(&mut of("resume"), &[1_500, 5_000, 60_000]) * MS,
                damage: some("damage", 0.05),
                breaks: some("breaks", 0.2),
                deaths: some("deaths", 0.1),
            },
            down_ms: if leaving || growth { down_ms } else { 0 },
            growth,
        }
    }

    /// Replicas move from store to store.
    pub(crate) fn moving(&self) -> bool {
        self.moves.1 > 0
    }

    /// Settings of the cluster under which what takes minutes in production takes seconds.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let down = self.down_ms;
        let settings = [
            ("store.suspect_ms", down / 2),
            ("store.down_ms", down),
            ("lifecycle.join_ms", 3_000),
            ("lifecycle.pairing_ms", 2_000),
            ("lifecycle.promotion_ms", 5_000),
            ("lifecycle.stall_ms", 3_000),
            ("lifecycle.zombie_ms", 4_000),
            ("lifecycle.contact_ms", 1_500),
            ("lifecycle.stable_ms", 200),
            ("store_limit.additions", 100_000),
            ("store_limit.removals", 100_000),
        ];
        settings.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
    }

    /// When a store splits a region.
    pub(crate) fn split(&self) -> SplitOptions {
        SplitOptions { max_bytes: 1 << 20, max_keys: self.split_keys }
    }
}

/// 1.2 / 0.82 stays below the 1.5 that separates the vote promise from the lease.
fn rates(rng: &mut SmallRng) -> Span {
    pick(rng, &[(1_000_000, 1_000_000), (950_000, 1_050_000), (820_000, 1_200_000)])
}
