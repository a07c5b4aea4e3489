//! The cluster under simulated trouble, one seed after another.
#![allow(clippy::unwrap_used)]

use quorate_tests::sim::{self, Outcome};

fn check(seed: u64) -> Outcome {
    let outcome = sim::run(seed);
    if let Some(words) = &outcome.broken {
        panic!(
            "seed {seed}: {words}\nreplay it with: QUORATE_SEED={seed} cargo test -p quorate-tests \
             --test sim -- replay --nocapture"
        );
    }
    outcome
}

#[test]
fn replay() {
    let Ok(seed) = std::env::var("QUORATE_SEED") else { return };
    let seed = seed.parse().unwrap();
    let outcome = sim::replay(seed);
    println!("{outcome:?}");
    assert_eq!(outcome.broken, None);
}

#[test]
fn seeds() {
    let count = std::env::var("QUORATE_SEEDS").map_or(20, |count| count.parse().unwrap());
    let first = std::env::var("QUORATE_FIRST").map_or(0, |first| first.parse().unwrap());
    let mut failed = Vec::new();
    for seed in first..first + count {
        let begun = std::time::Instant::now();
        let outcome = std::panic::catch_unwind(|| sim::run(seed));
        let took = begun.elapsed().as_millis();
        match outcome {
            Ok(outcome) => match &outcome.broken {
                None => println!("seed {seed}: {took} ms {outcome:?}"),
                Some(words) => {
                    println!("seed {seed}: {took} ms BROKEN {words}");
                    failed.push(seed);
                }
            },
            Err(_) => {
                println!("seed {seed}: PANIC");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    check(0);
}
