//! The cluster under simulated trouble, one seed after another.
//!
//! `QUORATE_SEEDS=1000` tries that many seeds instead of fifty, `QUORATE_FIRST=5000` begins
//! elsewhere. A failing seed prints the command that replays it. To pin one that found a bug, give
//! its replay a name and a sentence: `QUORATE_PIN=name QUORATE_STORY='What the bug was.'`.
//!
//! The mutation score, how many seeds notice which bug that was put back on purpose:
//! `cargo test -p quorate-tests --test sim -- --ignored mutation_score --nocapture`
//! (`QUORATE_SEEDS=200` seeds for each instead of a hundred).
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_tests::sim::{Case, Mutant, Outcome, run};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Does the same for all items, on all processors. The results keep the order of the items.
fn for_all<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
        {
            done.push((at, act(item)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

thread_local! {
    /// Panics of this thread are expected: what they say is an outcome, not noise.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lives through a case. A panic is a broken promise as well: raft-rs notices some bugs itself.
fn live(case: Case) -> Result<Outcome, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(case)));
    QUIET.set(false);
    let outcome = outcome.map_err(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        format!("it panics: {}", words.unwrap_or_default())
    })?;
    match &outcome.broken {
        Some(words) => Err(words.clone()),
        None => Ok(outcome),
    }
}

const REPLAY: &str = "cargo test -p quorate-tests --test sim -- --exact replay --nocapture";

#[test]
fn seeds_keep_all_promises() {
    let first = from_environment("QUORATE_FIRST").unwrap_or(0);
    let count = from_environment("QUORATE_SEEDS").unwrap_or(50);
    let seeds: Vec<u64> = (first..first + count).collect();
    let lived = for_all(&seeds, |seed| {
        live(Case::of(*seed)).map_err(|words| {
            let words = format!("seed {seed}: {words}");
            // At once: a long sweep may be broken off.
            eprintln!("{words}");
            format!("{words}\nreplay it with:\n  QUORATE_SEED={seed} {REPLAY}\n")
        })
    });
    let broken: Vec<String> = lived.iter().filter_map(|lived| lived.clone().err()).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    let outcomes: Vec<Outcome> = lived.into_iter().flatten().collect();
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    // What has to be seen at least, in a share of the seeds.
    for (what, seen, least) in [
        ("merges", sum(|outcome| outcome.merges), count / 10),
        ("resumed snapshots", sum(|outcome| outcome.transfers.resumed), count / 10),
        ("of them after a restart", sum(|outcome| outcome.transfers.restored), count / 50),
        ("damaged chunks", sum(|outcome| outcome.transfers.damaged), count / 10),
        ("stopped snapshots", sum(|outcome| outcome.transfers.stopped), count / 10),
        ("removals", sum(|outcome| outcome.removals), count / 10),
        ("members grown", sum(|outcome| outcome.grown), count / 5),
        ("lost for good", sum(|outcome| outcome.lost), count / 20),
    ] {
        println!("{what}: {seen} in {count} seeds");
        assert!(count < 50 || seen >= least, "{what}: {seen} in {count} seeds prove little");
    }
}

/// Cases that found a bug once, each with a sentence about it.
fn pinned() -> Vec<(PathBuf, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pinned");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    Case::parse(&text).unwrap_or_else(|error| panic!("{} is no case: {error}", path.display()))
}

#[test]
fn what_was_found_stays_fixed() {
    let broken = for_all(&pinned(), |(path, case)| {
        live(case.clone()).err().map(|words| {
            let (name, story) = (path.display(), &case.story);
            format!("{story}\nAgain: {words}\nreplay it with:\n  QUORATE_CASE={name} {REPLAY}\n")
        })
    });
    let broken: Vec<String> = broken.into_iter().flatten().collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 8, 14, 62] {
        let (first, second) = (run(Case::of(seed)), run(Case::of(seed)));
        assert!(first.lines > 1_000, "seed {seed} did nothing");
        assert_eq!(first.hash, second.hash, "seed {seed} went another way the second time");
        let written = Case::parse(&Case::of(seed).to_text()).unwrap();
        assert_eq!(first.hash, run(written).hash, "seed {seed} is not what was written down");
    }
    assert_ne!(run(Case::of(3)).hash, run(Case::of(5)).hash);
}

/// Prints everything that happens in the seed that `QUORATE_SEED` names, or in the file that
/// `QUORATE_CASE` names; with a bug put in where `QUORATE_MUTANT` names one.
#[test]
fn replay() {
    let case = match (from_environment("QUORATE_SEED"), std::env::var("QUORATE_CASE")) {
        (Some(seed), _) => Case::of(seed),
        (None, Ok(path)) => read(Path::new(&path)),
        (None, Err(_)) => return,
    };
    let case = match std::env::var("QUORATE_MUTANT") {
        Ok(name) => {
            let mutant = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
            case.with(mutant.unwrap_or_else(|| panic!("{name} is none of {:?}", Mutant::ALL)))
        }
        Err(_) => case,
    };
    if let (Ok(name), Ok(story)) = (std::env::var("QUORATE_PIN"), std::env::var("QUORATE_STORY")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("pinned/{name}.json"));
        std::fs::write(path, case.clone().with_story(&story).to_text()).unwrap();
    }
    let outcome = live(case.printed());
    println!("{outcome:#?}");
    outcome.unwrap();
}

/// What a seed says about a bug that was put in.
fn noticed(mutant: Mutant, seed: u64) -> Option<String> {
    live(Case::of(seed).with(mutant)).err()
}

/// Bugs that need more seeds than a test may take, or that nothing notices yet. The score has them.
const RARELY_NOTICED: [Mutant; 16] = [
    // Only a loss of power within the milliseconds of a slow sync shows it.
    Mutant::PersistedBeforeSync,
    // A read that was admitted under the lease may see what was there when it was admitted; only
    // the removal of the replica between its steps shows it.
    Mutant::UnconfirmedRead,
    // Who hears no leader misses its writes, and gets no vote for its shorter log.
    Mutant::ForgottenPromise,
    Mutant::LeaseThroughTransfer,
    Mutant::SnapshotWithoutJoint,
    Mutant::ConfigurationUntold,
    Mutant::LeaveByWhoEntered,
    Mutant::DestroyedWithoutTombstone,
    Mutant::LostIgnored,
    // Two losses have to meet. A pinned case shows each.
    Mutant::AskersIgnored,
    Mutant::HostedUntold,
    Mutant::UnknownUntold,
    // Between the merge and its own stop a store must be asked for a key that was written meanwhile.
    Mutant::ServedWhileStopped,
    // The target's log, or a snapshot of it that names the source, says so as well.
    Mutant::MergedUntold,
    // A replica has to lack the source's last entries for longer than a merge takes.
    Mutant::CommitBeforeEverywhere,
    // What a store still has of a region that is without it goes within milliseconds.
    Mutant::EmptyReported,
];

#[test]
fn mutants_are_noticed() {
    const MOST: u64 = 250;
    let mutants: Vec<Mutant> =
        Mutant::ALL.into_iter().filter(|mutant| !RARELY_NOTICED.contains(mutant)).collect();
    let unnoticed = for_all(&mutants, |mutant| {
        let found = (0..MOST).find_map(|seed| noticed(*mutant, seed));
        found.is_none().then(|| format!("{mutant:?} goes unnoticed in {MOST} seeds"))
    });
    let unnoticed: Vec<String> = unnoticed.into_iter().flatten().collect();
    assert!(unnoticed.is_empty(), "\n{}", unnoticed.join("\n"));
}

#[test]
#[ignore = "the mutation score takes many minutes"]
fn mutation_score() {
    let count = from_environment("QUORATE_SEEDS").unwrap_or(100);
    let only = std::env::var("QUORATE_MUTANT").ok();
    println!("| Bug | noticed | of seeds | first | in which words |\n|---|---|---|---|---|");
    for mutant in Mutant::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        let seeds: Vec<u64> = (0..count).collect();
        let words = for_all(&seeds, |seed| noticed(mutant, *seed));
        let noticed = words.iter().flatten().count();
        let first = words.iter().position(Option::is_some);
        let (first, words) = match first {
            Some(at) => (at.to_string(), words[at].clone().unwrap_or_default()),
            None => ("never".to_owned(), String::new()),
        };
        let words: String = words.lines().next().unwrap_or_default().chars().take(90).collect();
        println!("| {mutant:?} | {noticed} | {count} | {first} | {words} |");
    }
}
