//! The cluster under simulated trouble, one seed after another.
//!
//! `QUORATE_SEEDS=1000` tries that many seeds instead of fifty, `QUORATE_FIRST=5000` begins
//! elsewhere. A failing seed prints the command that replays it.
#![allow(clippy::unwrap_used)]

use quorate_tests::sim::{self, Mutant, Outcome};

/// Lives through a seed; panics with the command to replay it where a promise was broken.
fn check(seed: u64) -> Outcome {
    let outcome = std::panic::catch_unwind(|| sim::run(seed));
    let broken = match &outcome {
        Ok(outcome) => outcome.broken.clone(),
        Err(_) => Some("it panics".to_owned()),
    };
    if let Some(words) = broken {
        panic!(
            "seed {seed}: {words}\nreplay it with:\n  QUORATE_SEED={seed} cargo test -p \
             quorate-tests --test sim -- replay --nocapture"
        );
    }
    outcome.unwrap()
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// One of two halves, so that both cores of a small machine have work.
fn half(number: u64) {
    let first = from_environment("QUORATE_FIRST").unwrap_or(0);
    let count = from_environment("QUORATE_SEEDS").unwrap_or(50);
    for seed in (first..first + count).filter(|seed| seed % 2 == number) {
        check(seed);
    }
}

#[test]
fn even_seeds_keep_all_promises() {
    half(0);
}

#[test]
fn odd_seeds_keep_all_promises() {
    half(1);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 14, 62] {
        let (first, second) = (sim::run(seed), sim::run(seed));
        assert!(first.lines > 1_000, "seed {seed} did nothing");
        assert_eq!(first.hash, second.hash, "seed {seed} went another way the second time");
    }
    assert_ne!(sim::run(3).hash, sim::run(5).hash);
}

/// Prints everything that happens in the seed that `QUORATE_SEED` names.
#[test]
fn replay() {
    let Some(seed) = from_environment("QUORATE_SEED") else { return };
    let outcome = sim::replay(seed);
    println!("{outcome:#?}");
    assert_eq!(outcome.broken, None);
}

/// Bugs that a seed has found. Each stays fixed.
mod pinned {
    use super::check;

    /// A store that was away while a region split, and then got a snapshot of the rest, never got
    /// a replica of what was split off.
    #[test]
    fn a_split_that_was_missed() {
        check(0);
        check(4);
    }

    /// raft-rs merged entries into an empty append that stood at another index: the follower
    /// acknowledged what it never got.
    #[test]
    fn an_append_merged_at_another_index() {
        check(18);
    }

    /// A lease read showed less than a follower had already shown, because the leader had not
    /// applied yet what it had told its followers to be committed.
    #[test]
    fn a_follower_ahead_of_its_leader() {
        check(62);
    }

    /// An entry that arrived in one turn with the snapshot before it was acknowledged and lost.
    #[test]
    fn an_entry_behind_a_snapshot() {
        check(102);
    }
}

/// In how many of so many seeds a bug that was put in is noticed.
fn noticed(mutant: Mutant, seeds: u64) -> usize {
    // Panics are expected: raft-rs notices some of these itself.
    std::panic::set_hook(Box::new(|_| {}));
    let notices = |seed: &u64| {
        let outcome = std::panic::catch_unwind(|| sim::run_mutant(*seed, mutant));
        outcome.map_or(true, |outcome| outcome.broken.is_some())
    };
    let count = (0..seeds).filter(notices).count();
    let _ = std::panic::take_hook();
    println!("{mutant:?}: noticed in {count} of {seeds} seeds");
    count
}

#[test]
fn mutants_are_noticed() {
    for mutant in [
        Mutant::PersistedBeforeSync,
        Mutant::SkippedSync,
        Mutant::AnsweredBeforeApplied,
        Mutant::FollowerWithoutIndex,
        Mutant::AppliedWithoutData,
    ] {
        let seeds = from_environment("QUORATE_MUTANT_SEEDS").unwrap_or(200);
        assert!(noticed(mutant, seeds) > 0, "{mutant:?} goes unnoticed");
    }
}
