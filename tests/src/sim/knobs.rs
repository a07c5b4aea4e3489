//! What one seed chooses: the size of the world, its speeds, and what goes wrong in it.

use quorate_consensus::shard::RaftOptions;
use quorate_store::core::SplitOptions;
use rand::Rng;
use rand::rngs::SmallRng;

use super::agenda::MS;

/// Kinds of trouble.
pub(super) const DEEDS: usize = 8;

/// From and to, both included.
pub(super) type Span = (u64, u64);

/// The choices of a seed. Times are in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Knobs {
    pub(super) stores: u64,
    pub(super) members: u64,
    pub(super) replicas: u32,
    pub(super) shards: usize,
    pub(super) clients: u64,
    pub(super) keys: u64,
    pub(super) raft: RaftOptions,
    pub(super) split: SplitOptions,
    /// How long the bad times last.
    pub(super) chaos: u64,
    /// Between two deeds of the nemesis.
    pub(super) nemesis: Span,
    /// How often the nemesis does which deed, in relation.
    pub(super) deeds: [u64; DEEDS],
    pub(super) delay: Span,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    /// Part of the frames that overtake others.
    pub(super) reorder: f64,
    /// Part of the frames that a broken link keeps for later.
    pub(super) keep: f64,
    pub(super) sync: Span,
    pub(super) stall: f64,
    pub(super) sync_failure: f64,
    pub(super) apply: Span,
    /// Nothing is stepped while a write is under way.
    pub(super) blocking: bool,
    /// Slowest and fastest clock, in millionths of real time.
    pub(super) rates: Span,
    pub(super) think: Span,
    pub(super) deadline: u64,
    /// Part of the operations that write.
    pub(super) writes: f64,
    /// Part of the reads that ask a follower.
    pub(super) followers: f64,
}

impl Knobs {
    pub(super) fn draw(rng: &mut SmallRng) -> Self {
        let tick_ms = pick(rng, &[50, 100, 100]);
        let raft = RaftOptions {
            tick_ms,
            election_ticks: 600 / tick_ms as usize,
            election_stagger_ticks: 200 / tick_ms as usize,
            sleep_after_ticks: pick(rng, &[0, 3, 8, 20]),
            truncate_entries: pick(rng, &[3, 10, 40]),
            max_log_entries: pick(rng, &[12, 60, 400]),
            max_log_bytes: pick(rng, &[4_000, 1 << 20]),
            max_append_bytes: pick(rng, &[200, 4_000, 512 * 1024]),
            max_inflight: pick(rng, &[1, 4, 64]),
            entry_bytes: pick(rng, &[100, 256 * 1024]),
            wakes_per_tick: pick(rng, &[1, 8, 1_000]),
            request_timeout_ms: pick(rng, &[1_000, 5_000]),
            ..RaftOptions::default()
        };
        let stores = pick(rng, &[1, 3, 3, 3, 3, 3, 3, 4, 5]);
        let calm = rng.random_bool(0.15);
        let some = |rng: &mut SmallRng, most: f64| match calm || rng.random_bool(0.4) {
            true => 0.0,
            false => rng.random_range(0.0..most),
        };
        Self {
            stores,
            members: pick(rng, &[1, 3, 3, 3]),
            replicas: pick(rng, &[3, 3, 5]),
            shards: rng.random_range(1..=3),
            clients: rng.random_range(2..=6),
            keys: pick(rng, &[4, 12, 40, 80]),
            raft,
            split: SplitOptions { max_bytes: 1 << 20, max_keys: pick(rng, &[3, 8, 20, 1_000]) },
            chaos: rng.random_range(8_000..16_000) * MS,
            nemesis: (100 * MS, pick(rng, &[500, 1_500, 4_000]) * MS),
            deeds: std::array::from_fn(|deed| match deed {
                // All links are up again.
                4 => 2,
                _ => pick(rng, &[0, 1, 1, 3]),
            }),
            delay: pick(rng, &[(MS / 10, MS), (MS / 5, 5 * MS), (MS, 40 * MS)]),
            loss: some(rng, 0.08),
            duplicate: some(rng, 0.05),
            reorder: some(rng, 0.2),
            keep: pick(rng, &[0.0, 0.3]),
            sync: pick(rng, &[(MS / 20, MS / 5), (MS / 2, 3 * MS), (MS, 30 * MS)]),
            stall: some(rng, 0.003),
            sync_failure: some(rng, 0.000_5),
            apply: pick(rng, &[(0, MS / 20), (MS / 20, 2 * MS), (MS, 25 * MS)]),
            blocking: rng.random_bool(0.5),
            // 1.2 / 0.82 stays below the 1.5 that separates the vote promise from the lease.
            rates: pick(rng, &[(1_000_000, 1_000_000), (950_000, 1_050_000), (820_000, 1_200_000)]),
            think: pick(rng, &[(0, 2 * MS), (MS, 20 * MS), (5 * MS, 150 * MS)]),
            deadline: pick(rng, &[800, 3_000]) * MS,
            writes: pick(rng, &[0.2, 0.5, 0.9]),
            followers: pick(rng, &[0.0, 0.3]),
        }
    }
}

pub(super) fn pick<T: Copy>(rng: &mut SmallRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

pub(super) fn within(rng: &mut SmallRng, (low, high): Span) -> u64 {
    rng.random_range(low..=high)
}
