//! Proof of the linearizability checker, from four sides: recorded histories
//! with a published verdict, histories of a real atomic key, mutations of those
//! that cannot be right, and a brute-force search on everything small.

#[path = "linearize/cases.rs"]
mod cases;
#[path = "linearize/generate.rs"]
mod generate;
#[path = "linearize/jepsen.rs"]
mod jepsen;
#[path = "linearize/mutate.rs"]
mod mutate;

use std::collections::BTreeSet;

use quorate_tests::linearize::kv::{KeyedInput, KvOperation, KvVerdict, check_kv, check_kv_within};
use quorate_tests::linearize::register::{KvInput, KvModel, KvOutput};
use quorate_tests::linearize::{Operation, Verdict, check, check_within};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use generate::{KeyOperation, Simulated, arbitrary, brute_force};

const BUSY: Simulated =
    Simulated { clients: 6, operations: 60, latency: 12, unknown: 0, all_kinds: true };

#[test]
fn agrees_with_brute_force_on_arbitrary_histories() {
    let mut tally = [0u32; 2];
    for seed in 0..20_000 {
        let history = arbitrary(&mut SmallRng::seed_from_u64(seed));
        tally[usize::from(assert_agreement(seed, &history))] += 1;
    }
    assert!(tally.iter().all(|&count| count > 2_000), "lopsided verdicts: {tally:?}");
}

#[test]
fn agrees_with_brute_force_when_one_answer_is_changed() {
    let small = Simulated { clients: 3, operations: 7, latency: 8, unknown: 15, all_kinds: true };
    let mut tally = [0u32; 2];
    for seed in 0..10_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut history = small.run(&mut rng);
        assert!(assert_agreement(seed, &history), "seed {seed}: refused {history:#?}");
        mutate::any_read(&mut history, &mut rng);
        tally[usize::from(assert_agreement(seed, &history))] += 1;
    }
    assert!(tally.iter().all(|&count| count > 1_000), "lopsided verdicts: {tally:?}");
}

fn assert_agreement(seed: u64, history: &[KeyOperation]) -> bool {
    let expected = brute_force(history);
    let verdict = check(&KvModel::default(), history);
    assert_eq!(verdict.is_linearizable(), expected, "seed {seed}: {verdict:?} for {history:#?}");
    assert_ne!(verdict.is_illegal(), expected, "seed {seed}: {verdict:?} for {history:#?}");
    let keyed: Vec<_> = history.iter().cloned().map(|op| keyed("key", op)).collect();
    match check_kv(&keyed) {
        KvVerdict::Linearizable => assert!(expected, "seed {seed}: {history:#?}"),
        KvVerdict::Illegal { why, .. } => assert!(!expected, "seed {seed}: {}", why.explanation),
        KvVerdict::Unknown { .. } => panic!("seed {seed}: undecided"),
    }
    expected
}

#[test]
fn accepts_an_atomic_key() {
    for seed in 0..500 {
        let history = BUSY.run(&mut SmallRng::seed_from_u64(seed));
        let verdict = check(&KvModel::default(), &history);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn accepts_an_atomic_key_with_unknown_outcomes() {
    let lossy = Simulated { unknown: 15, ..BUSY };
    for seed in 0..500 {
        let history = lossy.run(&mut SmallRng::seed_from_u64(seed));
        assert!(history.iter().any(|op| op.output.is_none()), "seed {seed} loses nothing");
        let verdict = check(&KvModel::default(), &history);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn refuses_every_mutation() {
    for mutation in mutate::ALL {
        let mut applied = 0;
        for seed in 0..400 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let unknown = if seed % 2 == 0 { 0 } else { 8 };
            let mut history = Simulated { unknown, ..BUSY }.run(&mut rng);
            if !(mutation.apply)(&mut history, &mut rng) {
                continue;
            }
            applied += 1;
            let verdict = check(&KvModel::default(), &history);
            assert!(verdict.is_illegal(), "seed {seed}, {}: {verdict:?}", mutation.name);
        }
        assert!(applied > 50, "{} applied to {applied} histories only", mutation.name);
    }
}

#[test]
fn names_the_operations_of_a_refusal() {
    for seed in 0..100 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut history = BUSY.run(&mut rng);
        assert!((mutate::NEVER_WRITTEN.apply)(&mut history, &mut rng), "seed {seed} has no read");
        let Verdict::Illegal(why) = check(&KvModel::default(), &history) else {
            panic!("seed {seed}: accepted");
        };
        let prefix: Vec<_> = why.prefix.iter().map(|&i| history[i].clone()).collect();
        let bad = history.iter().position(mutate::reads_never_written).expect("was mutated");
        assert!(check(&KvModel::default(), &prefix).is_linearizable(), "seed {seed}: {why:?}");
        assert_eq!(why.stuck, bad, "seed {seed}: {}", why.explanation);
        let over = |op: &KeyOperation| op.ret < history[bad].ret;
        let explained = (0..history.len()).filter(|&i| over(&history[i]));
        assert!(explained.into_iter().all(|i| why.prefix.contains(&i)), "seed {seed}: {why:?}");
        assert!(why.explanation.starts_with("cannot be placed: "), "{}", why.explanation);
    }
}

/// 10,000 operations of 16 clients on 50 keys, as one history.
fn many_keys(unknown: u32) -> Vec<KvOperation> {
    let clients =
        Simulated { clients: 16, operations: 10_000, latency: 40, unknown, all_kinds: true };
    let history = clients.run_on(50, &mut SmallRng::seed_from_u64(0x5eed));
    history.into_iter().map(|(key, op)| keyed(&format!("key{key:02}"), op)).collect()
}

fn keyed(key: &str, op: KeyOperation) -> KvOperation {
    let input = KeyedInput::new(key, op.input);
    Operation { client: op.client, input, output: op.output, invoke: op.invoke, ret: op.ret }
}

#[test]
fn a_big_history_takes_few_steps() {
    for unknown in [0, 2] {
        let history = many_keys(unknown);
        assert_eq!(history.len(), 10_000);
        let verdict = check_kv_within(&history, 200_000);
        assert_eq!(verdict, KvVerdict::Linearizable, "{unknown} % unknown: {verdict}");
    }
}

#[test]
fn a_long_history_of_one_key_takes_few_steps() {
    let long = Simulated { operations: 20_000, clients: 8, ..BUSY };
    let history = long.run(&mut SmallRng::seed_from_u64(1));
    assert_eq!(check_within(&KvModel::default(), &history, 1_000_000), Verdict::Linearizable);
}

#[test]
fn thousands_of_lost_writes_do_not_hide_a_violation() {
    let one_at_a_time = Simulated { clients: 1, operations: 1_000, ..BUSY };
    let mut history = one_at_a_time.run(&mut SmallRng::seed_from_u64(3));
    let lost = |i: usize| KeyOperation {
        client: 2 + i as u64,
        input: KvInput::Put(format!("lost{i}").into_bytes()),
        output: None,
        invoke: i as u64,
        ret: u64::MAX,
    };
    history.extend((0..5_000).map(lost));
    let mut history: Vec<_> = history.into_iter().map(|op| keyed("key", op)).collect();
    assert_eq!(check_kv_within(&history, 100_000), KvVerdict::Linearizable);

    // One lost write is seen late, and then unseen.
    let read = |value: &str, invoke| KeyOperation {
        client: 1,
        input: KvInput::Get,
        output: Some(KvOutput::Value(Some(value.into()))),
        invoke,
        ret: invoke + 1,
    };
    history.push(keyed("key", read("lost7", 50_000)));
    assert_eq!(check_kv_within(&history, 100_000), KvVerdict::Linearizable);
    history.push(keyed("key", read("lost8", 50_010)));
    assert_eq!(check_kv_within(&history, 100_000), KvVerdict::Linearizable);
    history.push(keyed("key", read("lost7", 50_020)));
    let verdict = check_kv_within(&history, 100_000);
    let KvVerdict::Illegal { why, .. } = &verdict else { panic!("{verdict}") };
    assert_eq!(why.stuck, history.len() - 1, "{verdict}");
}

#[test]
fn names_the_first_key_at_fault() {
    let mut history = many_keys(0);
    for key in ["key31", "key07"] {
        let read = history
            .iter_mut()
            .filter(|op| op.input.key == key.as_bytes())
            .find(|op| mutate::is_read(&op.input.input, op.output.as_ref()))
            .expect("every key is read");
        read.output = Some(mutate::never_written());
    }
    let verdict = check_kv(&history);
    let KvVerdict::Illegal { key, why } = &verdict else { panic!("{verdict}") };
    assert_eq!(key, b"key07");
    let named: BTreeSet<&[u8]> =
        why.prefix.iter().chain([&why.stuck]).map(|&i| history[i].input.key.as_slice()).collect();
    assert_eq!(named, BTreeSet::from([b"key07".as_slice()]), "indices are of the whole history");
    assert!(verdict.to_string().contains("key \"key07\" is not linearizable"), "{verdict}");
}
