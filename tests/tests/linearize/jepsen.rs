//! The recorded histories: each verdict, mutations of the sound ones, and what
//! the parser says about bad lines.

use std::path::{Path, PathBuf};

use quorate_tests::linearize::jepsen::{RegisterOperation, parse, parse_verdicts};
use quorate_tests::linearize::register::{Register, RegisterInput, RegisterOutput};
use quorate_tests::linearize::{Verdict, check, check_within};

/// Far below the default, so that a loss of pruning shows: the longest search
/// takes 552 steps.
const BUDGET: u64 = 2_000;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/jepsen-etcd")
}

fn read(name: &str) -> String {
    let path = directory().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Name, history and verdict of every log.
fn logs() -> Vec<(String, Vec<RegisterOperation>, bool)> {
    let verdicts = parse_verdicts("verdicts.tsv", &read("verdicts.tsv"));
    let load = |(name, verdict): (String, bool)| {
        let history = parse(&name, &read(&name)).unwrap_or_else(|e| panic!("{e}"));
        (name, history, verdict)
    };
    verdicts.unwrap_or_else(|e| panic!("{e}")).into_iter().map(load).collect()
}

#[test]
fn every_log_has_a_verdict() {
    let mut named: Vec<String> = logs().into_iter().map(|(name, ..)| name).collect();
    let entries = std::fs::read_dir(directory()).expect("the directory is part of the repository");
    let mut present: Vec<String> = entries
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".log"))
        .collect();
    named.sort();
    present.sort();
    assert_eq!(named, present);
    assert_eq!(named.len(), 52);
}

#[test]
fn gives_the_published_verdicts() {
    for (name, history, expected) in logs() {
        let verdict = check_within(&Register, &history, BUDGET);
        assert_eq!(verdict.is_linearizable(), expected, "{name}: {verdict:?}");
        assert_eq!(verdict.is_illegal(), !expected, "{name}: {verdict:?}");
    }
}

/// The published verdicts take a refused compare-and-set for an observation. To
/// take it for nothing at all is sound as well, and can only accept more.
#[test]
fn accepts_no_less_without_refused_swaps() {
    for (name, mut history, expected) in logs() {
        history.retain(|op| op.output != Some(RegisterOutput::Swapped(false)));
        let verdict = check_within(&Register, &history, BUDGET);
        assert!(verdict.is_linearizable() || !expected, "{name}: {verdict:?}");
    }
}

#[test]
fn refuses_any_read_of_a_value_never_written() {
    let mut mutated = 0;
    for (name, history, _) in logs().into_iter().filter(|(.., expected)| *expected) {
        for i in (0..history.len()).filter(|&i| history[i].input == RegisterInput::Read) {
            let mut history = history.clone();
            history[i].output = Some(RegisterOutput::Value(Some(99)));
            let Verdict::Illegal(why) = check(&Register, &history) else {
                panic!("{name}: accepted the read invoked in line {}", history[i].invoke);
            };
            assert_eq!(why.stuck, i, "{name}: {}", why.explanation);
            mutated += 1;
        }
    }
    assert!(mutated > 100, "{mutated} reads only");
}

#[test]
fn reads_all_kinds_of_events() {
    let text = "INFO  jepsen.util - 0\t:invoke\t:write\t4\n\
                INFO  jepsen.util - 1   :invoke :cas    [4 -2]\n\
                INFO  jepsen.util - 0\t:ok\t:write\t4\n\
                INFO  jepsen.util - 1   :info   :cas    :timed-out\n\
                \n\
                INFO  jepsen.util - 2\t:invoke\t:read\tnil\n\
                INFO  jepsen.util - 3\t:invoke\t:read\tnil\n\
                INFO  jepsen.util - 3\t:fail\t:read\t:timed-out\n\
                INFO  jepsen.util - 2\t:ok\t:read\t-2\n\
                INFO  jepsen.util - 2\t:invoke\t:write\t1\n";
    let history = parse("some.log", text).expect("well formed");
    let op = |client, input, output, invoke, ret| RegisterOperation {
        client,
        input,
        output,
        invoke,
        ret,
    };
    assert_eq!(
        history,
        [
            op(0, RegisterInput::Write(4), Some(RegisterOutput::Written), 1, 3),
            op(1, RegisterInput::Cas { from: 4, to: -2 }, None, 2, u64::MAX),
            op(2, RegisterInput::Read, Some(RegisterOutput::Value(Some(-2))), 6, 9),
            op(2, RegisterInput::Write(1), None, 10, u64::MAX),
        ]
    );
    assert!(check(&Register, &history).is_linearizable());
}

#[test]
fn names_file_and_line_of_what_it_cannot_read() {
    const BEGIN: &str = "INFO  jepsen.util - 0\t:invoke\t:write\t4\n";
    let cases = [
        ("WARN  something else", "expected a line of jepsen.util"),
        ("INFO  jepsen.util - ", "expected a line of jepsen.util"),
        ("INFO  jepsen.util - x\t:ok\t:read\tnil", "bad process \"x\""),
        ("INFO  jepsen.util - 7", "expected a kind of event"),
        ("INFO  jepsen.util - 7\t:ok", "expected an operation"),
        ("INFO  jepsen.util - 7\t:ok\t:read\tnil", "was not begun"),
        ("INFO  jepsen.util - 7\t:invoke\t:append\t1", "cannot read \":append\""),
        ("INFO  jepsen.util - 7\t:invoke\t:write\tnil", "bad number \"nil\""),
        ("INFO  jepsen.util - 7\t:invoke\t:write\t99999999999999999999", "bad number"),
        ("INFO  jepsen.util - 7\t:invoke\t:cas\t3 4", "expected a pair in brackets"),
        ("INFO  jepsen.util - 0\t:invoke\t:read\tnil", "has an operation open already"),
        ("INFO  jepsen.util - 0\t:ok\t:read\t4", "ends :write as :read"),
        ("INFO  jepsen.util - 0\t:ok\t:write\t5", "other values"),
        ("INFO  jepsen.util - 0\t:ok\t:write\t:timed-out", "cannot be a timeout"),
        ("INFO  jepsen.util - 0\t:info\t:write\t4", "unknown outcome \"4\""),
        ("INFO  jepsen.util - 0\t:crash\t:write\t4", "unknown kind of event \":crash\""),
    ];
    for (line, problem) in cases {
        let error = parse("bad.log", &format!("{BEGIN}{line}\n")).expect_err(line);
        let text = error.to_string();
        assert!(text.starts_with("bad.log:2: ") && text.contains(problem), "{line}: {text}");
    }
}

#[test]
fn survives_any_mangling_of_a_log() {
    let text = read("etcd_000.log");
    for cut in 0..text.len().min(3_000) {
        let _ = parse("cut.log", &text[..cut]);
        let without_one: String = [&text[..cut], &text[cut + 1..]].concat();
        let _ = parse("mangled.log", &without_one);
    }
}

#[test]
fn names_file_and_line_of_a_bad_verdict() {
    for (line, problem) in [("a.log true", "expected a file name"), ("a.log\tyes", "not \"yes\"")] {
        let error = parse_verdicts("v.tsv", &format!("b.log\tfalse\n{line}\n")).expect_err(line);
        let text = error.to_string();
        assert!(text.starts_with("v.tsv:2: ") && text.contains(problem), "{text}");
    }
}
