//! The layout holds: modules say what they are for, cores stay pure, arrows point down.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use quorate_tests::tidy::{Workspace, crates, docs, source};

/// Files that may be longer than [`source::MAX_LINES`]: path, lines, reason.
const LONG: &[(&str, usize, &str)] = &[
    ("store/src/run.rs", 434, "the order of starting and stopping is one story"),
    ("store/src/serve/tests.rs", 520, "scripts that share one serving store"),
];

/// Fails with everything that is wrong, not only the first.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn source_files_are_tidy() {
    let files = Workspace::open().unwrap().texts("rs").unwrap();
    assert!(files.len() > 50, "only {} source files found", files.len());
    let mut wrong = Vec::new();
    for (path, text) in &files {
        let rules = [
            source::opens_with_prose(text),
            source::is_short(path, text, LONG),
            source::is_pure(path, text),
        ];
        wrong.extend(rules.into_iter().filter_map(Result::err).map(|why| format!("{path} {why}")));
    }
    assert!(files.iter().any(|(path, _)| source::is_core(path)), "no core found");
    assert_none(&wrong);
}

#[test]
fn the_allow_list_has_no_leftovers() {
    let files = Workspace::open().unwrap().texts("rs").unwrap();
    let needless = LONG.iter().filter(|(path, _, _)| {
        let lines =
            files.iter().find(|(name, _)| name == path).map(|(_, text)| text.lines().count());
        lines.is_none_or(|lines| lines <= source::MAX_LINES)
    });
    let wrong: Vec<String> =
        needless.map(|(path, _, _)| format!("{path} needs no entry")).collect();
    assert_none(&wrong);
}

#[test]
fn dependencies_point_down() {
    let manifests = Workspace::open().unwrap().texts("toml").unwrap();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (path, text) in &manifests {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
        checked += 1;
        if let Err(why) = crates::point_down(folder, text) {
            wrong.push(format!("{folder} {why}"));
        }
    }
    assert_eq!(checked, 7, "every crate has a manifest");
    assert_none(&wrong);
}

#[test]
fn links_and_mentions_lead_somewhere() {
    let workspace = Workspace::open().unwrap();
    let mut wrong = Vec::new();
    for (page, text) in workspace.texts("md").unwrap() {
        for target in docs::links(&page, &text) {
            if !workspace.has(&target) {
                wrong.push(format!("{page} links to {}, which is not there", target.display()));
            }
        }
    }
    for (path, text) in workspace.texts("rs").unwrap() {
        for target in docs::mentions(&text).iter().filter(|target| !workspace.has(target)) {
            // The rules' own examples.
            if path != "tests/src/tidy/docs.rs" {
                wrong.push(format!("{path} speaks of {}, which is not there", target.display()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn scripts_can_be_run_and_stop_at_errors() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = Workspace::open().unwrap();
    let mut scripts = workspace.below("scripts");
    scripts.extend(workspace.below(".ci"));
    assert!(scripts.iter().any(|(path, _)| path == "scripts/up.sh"));
    let mut wrong = Vec::new();
    for (path, full) in &scripts {
        let text = std::fs::read_to_string(full).unwrap();
        // A library is sourced, not run.
        if path.ends_with("lib.sh") {
            continue;
        }
        let executable = std::fs::metadata(full).unwrap().permissions().mode() & 0o111 != 0;
        if !executable {
            wrong.push(format!("{path} is not executable: chmod +x {path}"));
        }
        if !text.starts_with("#!/usr/bin/env bash\n") || !text.contains("\nset -euo pipefail\n") {
            wrong.push(format!("{path} does not begin with bash and `set -euo pipefail`"));
        }
    }
    assert_none(&wrong);
    assert!(workspace.has(Path::new("scripts/test.sh")));
}
