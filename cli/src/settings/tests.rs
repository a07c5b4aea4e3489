#![allow(clippy::unwrap_used)]
//! Precedence, unknown keys, types: what a person gets wrong in a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Knobs {
    listen: String,
    placement: Vec<String>,
    raft: Raft,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raft {
    tick_ms: u64,
    pre_vote: bool,
}
impl Default for Knobs {
    fn default() -> Self {
        Self { listen: "127.0.0.1:1".to_owned(), placement: Vec::new(), raft: Raft::default() }
    }
}
impl Default for Raft {
    fn default() -> Self {
        Self { tick_ms: 100, pre_vote: true }
    }
}
impl Settings for Knobs {
    const HELP: &'static [(&'static str, &'static str)] = &[
        ("listen", "address"),
        ("placement", "addresses"),
        ("raft.tick_ms", "milliseconds"),
        ("raft.pre_vote", "switch"),
    ];
}

fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn layers(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
    Layers {
        file: Some((PathBuf::from("q.toml"), file.to_owned())),
        environment: pairs(environment),
        flags: pairs(flags),
    }
}

fn refusal(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    layers(file, environment, flags).apply::<Knobs>().unwrap_err().words
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "listen = 'file'\nplacement = ['a', 'b']\n[raft]\ntick_ms = 10\n";
    let environment = [("QUORATE_LISTEN", "environment"), ("QUORATE_RAFT_TICK_MS", "20")];
    let flags = [("listen", "flag"), ("log.level", "debug")];
    let layered = layers(file, &environment, &flags).apply::<Knobs>().unwrap();
    assert_eq!(
        layered.node,
        Knobs {
            listen: "flag".to_owned(),
            placement: vec!["a".to_owned(), "b".to_owned()],
            raft: Raft { tick_ms: 20, pre_vote: true },
        }
    );
    assert_eq!(layered.log.level, "debug");
    let origins: Vec<(String, String)> = layered
        .settings
        .into_iter()
        .map(|setting| (setting.key, setting.origin.to_string()))
        .collect();
    let origin = |key: &str| origins.iter().find(|(other, _)| other == key).unwrap().1.clone();
    assert_eq!(origin("listen"), "flag --listen");
    assert_eq!(origin("placement"), "file q.toml");
    assert_eq!(origin("raft.tick_ms"), "environment QUORATE_RAFT_TICK_MS");
    assert_eq!(origin("raft.pre_vote"), "default");
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    let words = refusal("listen = 'a'\n\n[raft]\ntick_mss = 10\n", &[], &[]);
    assert!(words.contains("q.toml line 4"), "{words}");
    assert!(words.contains("unknown key `raft.tick_mss`, did you mean `raft.tick_ms`?"), "{words}");
    let words = refusal("tick_ms = 10\n", &[], &[]);
    assert!(words.contains("did you mean `raft.tick_ms`?"), "{words}");
    let words = refusal("elephants = 10\n", &[], &[]);
    assert!(words.contains("unknown key `elephants` ("), "{words}");
    let words = refusal("[engine]\n", &[], &[]);
    assert!(words.contains("line 1: unknown key `engine`"), "{words}");
}

#[test]
fn a_wrong_type_names_its_line_and_what_is_wanted() {
    let words = refusal("\n[raft]\ntick_ms = 'soon'\n", &[], &[]);
    assert!(words.contains("line 3: `raft.tick_ms` must be a whole number"), "{words}");
    let words = refusal("placement = [1]\n", &[], &[]);
    assert!(words.contains("`placement` must be a list of texts"), "{words}");
    let words = refusal("raft = 1\n", &[], &[]);
    assert!(words.contains("`raft` must be a section"), "{words}");
    let words = refusal("listen = \n", &[], &[]);
    assert!(words.contains("q.toml line 1"), "{words}");
    let words = refusal("", &[("QUORATE_RAFT_TICK_MS", "x")], &[]);
    assert!(words.contains("QUORATE_RAFT_TICK_MS=\"x\" is not a whole number"), "{words}");
    let words = refusal("", &[], &[("raft.pre_vote", "perhaps")]);
    assert!(words.contains("--raft-pre-vote=\"perhaps\" is not true or false"), "{words}");
    let words = refusal("", &[], &[("raft.tick_ms", "-1")]);
    assert!(words.contains("not valid"), "{words}");
}

#[test]
fn lists_are_written_with_commas() {
    let layered = layers("", &[("QUORATE_PLACEMENT", "a:1, b:2,")], &[]).apply::<Knobs>().unwrap();
    assert_eq!(layered.node.placement, ["a:1", "b:2"]);
}

/// Every knob has a flag with words, and every flag a knob.
fn explains_itself<S: Settings>() {
    let knobs: Vec<String> =
        flatten(&defaults::<S>().unwrap()).into_iter().map(|(key, _)| key).collect();
    let mut explained: Vec<String> = help::<S>().map(|(key, _)| (*key).to_owned()).collect();
    explained.sort();
    let mut sorted = knobs.clone();
    sorted.sort();
    assert_eq!(explained, sorted);
    Layers::default().apply::<S>().unwrap();
}

#[test]
fn every_knob_of_every_process_is_explained() {
    explains_itself::<Knobs>();
    explains_itself::<StoreConfig>();
    explains_itself::<PlacementConfig>();
}
