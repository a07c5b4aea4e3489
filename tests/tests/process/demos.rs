//! The demos as a person types them: from nothing to PASS, with nothing left behind.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_tests::process::{Permit, Ran, program, run_for, until};

/// How long a demo may take where other tests run beside it.
const LIMIT: Duration = Duration::from_secs(420);

/// Runs a demo on records of our own, at a machine that may be busy.
fn demo(name: &str, records: usize) -> Ran {
    demo_with(name, records, &[])
}

fn demo_with(name: &str, records: usize, more: &[&str]) -> Ran {
    let _permit = Permit::take();
    let home = tempfile::Builder::new().prefix("quorate-demo-test-").tempdir().unwrap();
    let file = home.path().join("records.tsv");
    std::fs::write(&file, lines(records)).unwrap();
    let limit = LIMIT.as_secs().to_string();
    let mut arguments = vec!["demo", name, "--records", file.to_str().unwrap(), "--limit", &limit];
    arguments.extend(more);
    let ran = run_for(home.path(), &arguments, LIMIT + Duration::from_secs(60));
    println!("{}{}", ran.stderr, ran.stdout);
    ran
}

/// Records such as a package index has: long shared prefixes, values of very different length.
fn lines(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let (package, field) = (number / 4, ["Depends", "Description", "Section", "Version"]);
        let length = 10 + (number * 7919) % 190;
        writeln!(text, "debian/pkg-{package:06}/{}\t{:v<length$}", field[number % 4], number)
            .unwrap();
    }
    text
}

/// PASS as the last line on stdout, in a second's sight of what was checked.
fn passed(ran: Ran, name: &str, words: &[&str]) {
    let ran = ran.with_code(0);
    let last = ran.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("PASS: {name}: ")), "{last}");
    assert_eq!(ran.stdout.lines().count(), 1, "only the verdict is data: {}", ran.stdout);
    for word in words.iter().chain(&["0 of", "acknowledged writes lost", "records equal"]) {
        assert!(last.contains(word), "{word:?} is not in {last}");
    }
    let left: Vec<PathBuf> = std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(&format!("quorate-demo-{name}-")))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn split() {
    passed(demo("split", 40_000), "split", &["→", "regions"]);
}

#[test]
fn failover() {
    // Other tests run beside it.
    let ran = demo_with("failover", 20_000, &["--within", "10000"]);
    passed(ran, "failover", &["3 stores killed, longest gap", "(wanted: under"]);
}

#[test]
fn rebalance() {
    passed(demo("rebalance", 10_000), "rebalance", &["skew of replicas", "nothing moved for"]);
}

#[test]
fn join() {
    let words = ["3→5 voters in 6 regions", "6 lone learners", "0 even voter sets seen"];
    passed(demo("join", 10_000), "join", &words);
}

#[test]
fn decommission() {
    let words = ["left in", "a removal that could not end was refused"];
    passed(demo("decommission", 10_000), "decommission", &words);
}

#[test]
fn analytics() {
    let words = ["12 learners stayed learners", "with scans from learners"];
    passed(demo("analytics", 10_000), "analytics", &words);
}

#[test]
fn without_records_a_demo_says_what_to_give() {
    let home = tempfile::tempdir().unwrap();
    let ran = run_for(home.path(), &["demo", "split"], LIMIT).with_code(1);
    assert!(ran.stdout.starts_with("FAIL: split: no records: give a file"), "{}", ran.stdout);
}

/// Processes whose command line names something below a folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let wanted = folder.to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&wanted) && line.contains("store-")).collect()
}

#[test]
fn a_demo_that_is_told_to_end_leaves_nothing_behind() {
    let _permit = Permit::take();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("records.tsv");
    std::fs::write(&file, lines(40_000)).unwrap();
    let folder = home.path().join("temporary");
    std::fs::create_dir(&folder).unwrap();
    let child = Command::new(program())
        .args(["demo", "split", "--records", file.to_str().unwrap()])
        .env("TMPDIR", &folder)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("three stores run", LIMIT, || {
        let running = processes_of(&folder);
        if running.len() >= 3 { Ok(()) } else { Err(format!("{running:?}")) }
    });
    // SAFETY: a signal to a child of our own that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }, 0);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.starts_with("FAIL: split: interrupted"), "{said}");
    until("its processes are gone", LIMIT, || {
        let running = processes_of(&folder);
        if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) }
    });
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "its folder is gone");
}
