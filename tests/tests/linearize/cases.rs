//! Small histories that each show one rule, and the recorder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_tests::linearize::history::Recorder;
use quorate_tests::linearize::kv::{KeyedInput, KvVerdict, check_kv, parts, scanned};
use quorate_tests::linearize::register::{
    KvInput, KvModel, KvOutput, Register, RegisterInput, RegisterOutput,
};
use quorate_tests::linearize::{Operation, Verdict, check, check_within};

type Op = Operation<RegisterInput, RegisterOutput>;

/// The pending end of an operation with an unknown outcome.
const NEVER: u64 = u64::MAX;

fn write(value: i64, invoke: u64, ret: u64) -> Op {
    let output = (ret != NEVER).then_some(RegisterOutput::Written);
    Op { client: 0, input: RegisterInput::Write(value), output, invoke, ret }
}

fn read(value: impl Into<Option<i64>>, invoke: u64, ret: u64) -> Op {
    let output = Some(RegisterOutput::Value(value.into()));
    Op { client: 1, input: RegisterInput::Read, output, invoke, ret }
}

fn lost_swap(from: i64, to: i64, invoke: u64) -> Op {
    let input = RegisterInput::Cas { from, to };
    Op { client: 2, input, output: None, invoke, ret: NEVER }
}

#[track_caller]
fn accepts(history: &[Op]) {
    assert_eq!(check(&Register, history), Verdict::Linearizable);
}

#[track_caller]
fn refuses(history: &[Op]) {
    assert!(check(&Register, history).is_illegal());
}

#[test]
fn an_empty_history_is_linearizable() {
    accepts(&[]);
}

#[test]
fn the_order_of_the_slice_does_not_matter() {
    accepts(&[read(1, 5, 6), write(1, 1, 2)]);
    refuses(&[write(1, 5, 6), read(1, 1, 2)]);
}

#[test]
fn events_at_one_time_are_concurrent() {
    accepts(&[write(1, 1, 5), read(None, 5, 9)]);
    accepts(&[write(1, 1, 5), read(1, 5, 9)]);
    refuses(&[write(1, 1, 5), read(None, 6, 9)]);
    accepts(&[write(1, 5, 5), read(None, 5, 5), read(1, 5, 5)]);
}

#[test]
fn a_value_read_once_is_not_unread_later() {
    accepts(&[write(1, 0, 9), read(None, 1, 2), read(1, 3, 4), read(1, 5, 6)]);
    refuses(&[write(1, 0, 9), read(1, 1, 2), read(None, 3, 4)]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    accepts(&[write(1, 0, 1), write(2, 2, NEVER), read(1, 50, 51), read(1, 99, 100)]);
    accepts(&[write(1, 0, 1), write(2, 2, NEVER), read(1, 50, 51), read(2, 99, 100)]);
}

#[test]
fn an_unknown_write_takes_effect_once_and_not_early() {
    refuses(&[write(1, 0, 1), write(2, 2, NEVER), read(2, 5, 6), write(1, 7, 8), read(2, 9, 10)]);
    refuses(&[read(2, 0, 1), write(2, 2, NEVER)]);
}

#[test]
fn an_unknown_swap_has_the_effect_of_its_place() {
    accepts(&[write(1, 0, 1), lost_swap(1, 2, 2), read(1, 3, 4), read(2, 5, 6)]);
    accepts(&[write(1, 0, 1), lost_swap(7, 2, 2), read(1, 3, 4)]);
    refuses(&[write(1, 0, 1), lost_swap(7, 2, 2), read(2, 3, 4)]);
    // Only by way of the lost write does the lost swap find its value.
    accepts(&[write(1, 0, 1), lost_swap(7, 2, 2), write(7, 2, NEVER), read(2, 3, 4)]);
}

#[test]
fn a_history_of_unknown_outcomes_only_is_linearizable() {
    accepts(&[write(1, 0, NEVER), lost_swap(3, 4, 0), write(2, 1, NEVER)]);
}

#[test]
fn many_unknown_writes_do_not_explode() {
    let mut history: Vec<Op> = (0..200).map(|i| write(1_000 + i, 10, NEVER)).collect();
    let sequential = |i: u64| {
        let value = i as i64;
        [write(value, 20 * i + 20, 20 * i + 25), read(value, 20 * i + 30, 20 * i + 35)]
    };
    history.extend((0..200).flat_map(sequential));
    assert_eq!(check_within(&Register, &history, 1_000_000), Verdict::Linearizable);
}

#[test]
fn unknown_writes_beyond_one_word_of_bits_count_once_each() {
    let mut history: Vec<Op> = (0..70).map(|i| write(i, 10, NEVER)).collect();
    history.extend((0..70).map(|i| read(i, 20 * i as u64 + 20, 20 * i as u64 + 25)));
    assert_eq!(check_within(&Register, &history, 100_000), Verdict::Linearizable);
    for again in [0, 63, 64, 68] {
        let mut history = history.clone();
        history.push(read(again, 4_000, 4_001));
        assert!(check(&Register, &history).is_illegal(), "{again} once more");
    }
}

#[test]
fn equal_unknown_writes_are_exchangeable() {
    let mut history: Vec<Op> = (0..40).map(|i| write(7, i, NEVER)).collect();
    for i in 0..40 {
        history.extend([write(1, 100 + 20 * i, 105 + 20 * i), read(7, 110 + 20 * i, 115 + 20 * i)]);
    }
    assert_eq!(check_within(&Register, &history, 1_000), Verdict::Linearizable);
    history.extend([write(1, 2_000, 2_001), read(7, 2_002, 2_003)]);
    assert!(check_within(&Register, &history, 10_000).is_illegal(), "41 reads of 40 writes");
}

#[test]
fn an_exhausted_budget_is_no_verdict() {
    let history = [write(1, 0, 1), read(1, 2, 3)];
    assert_eq!(check_within(&Register, &history, 1), Verdict::Unknown { steps: 1 });
    assert_eq!(check_within(&Register, &history, 100), Verdict::Linearizable);
}

#[test]
#[should_panic(expected = "the clock of the recording is not monotonic")]
fn a_return_before_the_call_is_a_broken_recording() {
    let _ = check(&Register, &[write(1, 5, 4)]);
}

#[test]
fn an_explanation_reads_well() {
    let history =
        [write(1, 0, 1), write(2, 2, 3), write(3, 4, NEVER), write(4, 5, 99), read(1, 6, 7)];
    let Verdict::Illegal(why) = check(&Register, &history) else { panic!("accepted") };
    assert_eq!(why.stuck, 4);
    let expected = "\
cannot be placed: [6..7] client 1: Read -> Value(Some(1))
the longest order before it (3):
  [0..1] client 0: Write(1) -> Written
  [2..3] client 0: Write(2) -> Written
  [5..99] client 0: Write(4) -> Written
leaves the state: Some(4)
overlapping it, and not placed (1):
  [4..] client 0: Write(3) -> unknown
";
    assert_eq!(why.explanation, expected);
}

#[test]
fn a_key_that_holds_something_at_first() {
    let get = |value: Option<&[u8]>| Operation {
        client: 0,
        input: KvInput::Get,
        output: Some(KvOutput::Value(value.map(<[u8]>::to_vec))),
        invoke: 0,
        ret: 1,
    };
    let model = KvModel::holding(Some(b"old".to_vec()));
    assert!(check(&model, &[get(Some(b"old"))]).is_linearizable());
    assert!(check(&model, &[get(None)]).is_illegal());
}

#[test]
fn a_batch_and_a_scan_are_judged_key_by_key() {
    let put = |key: &str| KeyedInput::new(key, KvInput::Put(b"x".to_vec()));
    let batch = |invoke, ret| Operation {
        client: 0,
        input: vec![put("a"), put("b")],
        output: Some(vec![KvOutput::Done, KvOutput::Done]),
        invoke,
        ret,
    };
    let keys: BTreeSet<Vec<u8>> = ["a", "b", "c"].map(|key| key.as_bytes().to_vec()).into();
    let scan = |returned: &[&str], invoke| {
        let pairs: Vec<_> =
            returned.iter().map(|key| (key.as_bytes().to_vec(), b"x".to_vec())).collect();
        let (input, output) = scanned(&keys, &pairs);
        Operation { client: 1, input, output: Some(output), invoke, ret: invoke + 10 }
    };
    let judge = |returned: &[&str], invoke| {
        let history: Vec<_> = parts(batch(10, 20)).chain(parts(scan(returned, invoke))).collect();
        check_kv(&history)
    };

    assert_eq!(judge(&["a", "b"], 30), KvVerdict::Linearizable);
    assert_eq!(judge(&["b"], 15), KvVerdict::Linearizable, "half a batch, while it runs");
    for (returned, wrong) in
        [(vec!["b"], "a"), (vec!["a", "b", "c"], "c"), (vec!["a", "b", "z"], "z")]
    {
        let KvVerdict::Illegal { key, .. } = judge(&returned, 30) else { panic!("{returned:?}") };
        assert_eq!(key, wrong.as_bytes(), "{returned:?}");
    }
}

#[test]
fn a_batch_of_unknown_outcome_may_happen_in_part() {
    let input = ["a", "b"].map(|key| KeyedInput::new(key, KvInput::Put(b"x".to_vec()))).to_vec();
    let batch = Operation { client: 0, input, output: None, invoke: 1, ret: u64::MAX };
    let get = |key: &str, value: Option<Vec<u8>>| Operation {
        client: 1,
        input: KeyedInput::new(key, KvInput::Get),
        output: Some(KvOutput::Value(value)),
        invoke: 50,
        ret: 60,
    };
    let mut history: Vec<_> = parts(batch).collect();
    history.extend([get("a", Some(b"x".to_vec())), get("b", None)]);
    assert_eq!(check_kv(&history), KvVerdict::Linearizable);
}

#[test]
fn the_recorder_keeps_what_may_have_happened() {
    let clock = Arc::new(AtomicU64::new(10));
    let ticks = Arc::clone(&clock);
    let recorder = Recorder::new(move || ticks.fetch_add(1, Ordering::SeqCst));
    let first = recorder.invoke(1, RegisterInput::Write(1));
    let second = recorder.invoke(2, RegisterInput::Write(2));
    let third = recorder.invoke(3, RegisterInput::Write(3));
    drop(recorder.invoke(4, RegisterInput::Write(4)));
    let open = recorder.invoke_at(5, RegisterInput::Read, 100);
    second.fail();
    third.unknown();
    first.ok(RegisterOutput::Written);

    let op = |client, input, output, invoke, ret| Op { client, input, output, invoke, ret };
    let mut expected = vec![
        op(1, RegisterInput::Write(1), Some(RegisterOutput::Written), 10, 14),
        op(3, RegisterInput::Write(3), None, 12, NEVER),
        op(4, RegisterInput::Write(4), None, 13, NEVER),
        op(5, RegisterInput::Read, None, 100, NEVER),
    ];
    assert_eq!(recorder.history(), expected);
    open.ok_at(RegisterOutput::Value(Some(1)), 101);
    expected[3].output = Some(RegisterOutput::Value(Some(1)));
    expected[3].ret = 101;
    assert_eq!(recorder.history(), expected);
}

#[test]
fn threads_on_a_locked_register_are_linearizable() {
    let start = std::time::Instant::now();
    let recorder = Recorder::new(move || start.elapsed().as_nanos() as u64);
    let register = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (recorder, register) = (recorder.clone(), &register);
            scope.spawn(move || {
                for i in 0..250 {
                    let value = client * 1_000 + i;
                    let write = recorder.invoke(client as u64, RegisterInput::Write(value));
                    *register.lock().expect("no panic") = Some(value);
                    write.ok(RegisterOutput::Written);
                    let read = recorder.invoke(client as u64, RegisterInput::Read);
                    let value = *register.lock().expect("no panic");
                    read.ok(RegisterOutput::Value(value));
                }
            });
        }
    });
    let history = recorder.history();
    assert_eq!(history.len(), 2_000);
    accepts(&history);
}
