//! Which key comes next: seeded, uniform or zipfian, the same for every system.

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Skew of YCSB's workloads.
const THETA: f64 = 0.99;
/// Random bytes that values are cut from, so that nothing compresses them away.
const POOL_BYTES: usize = 1 << 20;

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Every key as often as any other.
    Uniform,
    /// Few keys very often (theta 0.99, as in YCSB), spread over the key space.
    Zipfian,
}

impl Distribution {
    /// What reports call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
        }
    }
}

/// The key with that number: 16 bytes, in the order of the numbers.
pub(super) fn key(number: u64) -> Bytes {
    format!("key{number:013}").into()
}

/// Draws keys and values.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    random: SmallRng,
    keys: u64,
    zipfian: Option<Zipfian>,
    pool: Bytes,
    value_bytes: usize,
}

impl Draw {
    /// Draws among `keys` keys; the same seed draws the same.
    pub(super) fn new(
        seed: u64,
        keys: u64,
        distribution: Distribution,
        value_bytes: usize,
    ) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut pool = vec![0; POOL_BYTES + value_bytes];
        random.fill(pool.as_mut_slice());
        let zipfian = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipfian => Some(Zipfian::new(keys, THETA)),
        };
        Self { random, keys, zipfian, pool: pool.into(), value_bytes }
    }

    /// The same draws with a seed of its own.
    pub(super) fn fork(&self, seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed), ..self.clone() }
    }

    /// The next key.
    pub(super) fn key(&mut self) -> Bytes {
        key(match &self.zipfian {
            None => self.random.random_range(0..self.keys),
            Some(zipfian) => scrambled(zipfian.rank(self.random.random())) % self.keys,
        })
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Bytes {
        let at = self.random.random_range(0..POOL_BYTES);
        self.pool.slice(at..at + self.value_bytes)
    }

    /// True in that many of a hundred cases.
    pub(super) fn percent(&mut self, share: u8) -> bool {
        self.random.random_range(0..100) < share
    }
}

/// Ranks by Zipf's law: Gray et al., "Quickly generating billion-record synthetic
/// databases" (1994), as YCSB uses it.
#[derive(Clone, Debug)]
struct Zipfian {
    items: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    fn new(items: u64, theta: f64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let (zeta, zeta_two) = (zeta_of(items), zeta_of(2));
        let items = items as f64;
        let eta = (1.0 - (2.0 / items).powf(1.0 - theta)) / (1.0 - zeta_two / zeta);
        Self { items, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    /// The rank (0 is the most frequent) for a number between 0 and 1.
    fn rank(&self, uniform: f64) -> u64 {
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        rank.min(self.items - 1.0) as u64
    }
}

/// Spreads ranks over the key space (FNV-1a), so that hot keys are not neighbours.
fn scrambled(rank: u64) -> u64 {
    rank.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn keys_have_sixteen_bytes_and_their_numbers_order() {
        assert_eq!(key(7).len(), 16);
        assert!(key(9) < key(10) && key(99_999) < key(100_000));
    }

    #[test]
    fn zipf_gives_each_rank_its_share() {
        let items = 1_000;
        let zipfian = Zipfian::new(items, THETA);
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = BTreeMap::<u64, u32>::new();
        let draws = 1_000_000;
        for _ in 0..draws {
            *counts.entry(zipfian.rank(random.random())).or_default() += 1;
        }
        assert!(counts.keys().all(|rank| *rank < items));
        // The law: rank r (from 0) has a share of (r + 1)^-theta / zeta. The two first ranks are
        // exact in this method, later ones approximate.
        for (rank, tolerance) in [(0, 0.02), (1, 0.02), (9, 0.15), (99, 0.15)] {
            let expected = f64::from(draws) * ((rank + 1) as f64).powf(-THETA) / zipfian.zeta;
            let seen = f64::from(counts[&rank]);
            assert!((seen / expected - 1.0).abs() < tolerance, "rank {rank}: {seen} of {expected}");
        }
    }

    #[test]
    fn a_seed_draws_the_same_again_and_values_have_their_size() {
        let draw = Draw::new(3, 1_000, Distribution::Zipfian, 256);
        let (mut one, mut two, mut other) = (draw.fork(5), draw.fork(5), draw.fork(6));
        let keys = |draw: &mut Draw| (0..50).map(|_| draw.key()).collect::<Vec<_>>();
        let drawn = keys(&mut one);
        assert_eq!(drawn, keys(&mut two));
        assert_ne!(drawn, keys(&mut other));
        assert_eq!(one.value(), two.value());
        assert_eq!(one.value().len(), 256);
    }

    #[test]
    fn uniform_reaches_every_key() {
        let mut draw = Draw::new(1, 10, Distribution::Uniform, 1);
        let seen: BTreeMap<Bytes, ()> = (0..1_000).map(|_| (draw.key(), ())).collect();
        assert_eq!(seen.len(), 10);
    }
}
