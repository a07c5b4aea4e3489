//! Placement rules: read, checked, and fitted.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_placement::core::rule::fit::{fit, role_of, wants};
use quorate_placement::core::rule::{BadRules, Rule, RuleRole, RuleSet};
use quorate_proto::{KeyRange, Peer, PeerId, Role, StoreId};

type Stores = BTreeMap<StoreId, BTreeMap<String, String>>;

/// Stores 1, 2, … with the labels given.
fn stores(labels: &[&[(&str, &str)]]) -> Stores {
    let named = |labels: &&[(&str, &str)]| {
        labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    (1..).map(StoreId).zip(labels.iter().map(named)).collect()
}

fn peers(voters: &[u64], learners: &[u64]) -> Vec<Peer> {
    let peer = |role| move |store: &u64| Peer { id: PeerId(*store), store: StoreId(*store), role };
    let voters = voters.iter().map(peer(Role::Voter));
    voters.chain(learners.iter().map(peer(Role::Learner))).collect()
}

fn on(peers: &[Peer]) -> Vec<u64> {
    peers.iter().map(|peer| peer.store.0).collect()
}

#[test]
fn rules_are_read_and_shown_alike() {
    for text in [
        "3 voters",
        "1 voter from \"a\" to \"b c\"",
        "2 learners to \"\\x00\\xff\" where tier=analytics",
        "1 learner from \"say \\x22x\\x22\" where disk!=hdd|tape, zone=a|b, gpu, !old",
    ] {
        assert_eq!(Rule::parse(text).unwrap().to_string(), text);
    }
    let set = RuleSet::parse("1 voter where a=1\n 2 voters where a=2 ;; 1 learner\n", 3).unwrap();
    assert_eq!(set.to_string(), "1 voter where a=1; 2 voters where a=2; 1 learner");
    assert_eq!(RuleSet::parse(&set.to_string(), 3), Ok(set));
}

#[test]
fn what_cannot_be_read_says_what_to_write() {
    for (text, why) in [
        ("voters", "it begins with \"voters\", not a number"),
        ("0 voters", "0 replicas are none: leave the rule away"),
        ("3 peers", "replicas are voters or learners, not \"peers\""),
        ("3 voters in zone", "\"in\" is none of from, to and where"),
        ("3 voters from a", "a key stands between quotation marks"),
        ("3 voters from \"b\" to \"a\"", "its range ends before it begins"),
        ("3 voters from \"\\y\"", "bad escape at byte 0"),
        ("3 voters where zone=", "\"\" is no value of a label"),
        ("3 voters where =a", "\"\" is no name of a label"),
        ("3 voters where", "\"\" is no name of a label"),
    ] {
        let error = RuleSet::parse(text, 3).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("write one as `3 voters`"), "{error}");
    }
}

#[test]
fn sets_that_cannot_be_are_refused() {
    let refused = |text: &str| RuleSet::parse(text, 3).unwrap_err();
    assert!(matches!(refused("2 voters"), BadRules::Voters(_, 2)));
    assert!(matches!(refused("9 voters"), BadRules::Voters(_, 9)));
    assert!(matches!(refused("9 learners"), BadRules::Learners(_, 9)));
    assert!(matches!(
        refused("3 voters from \"a\" to \"c\"; 3 voters from \"b\" to \"d\""),
        BadRules::Crossing(..)
    ));
    let many = "3 voters\n".repeat(65);
    assert_eq!(refused(&many), BadRules::TooMany(65));
    assert!(matches!(RuleSet::of_replicas(4), Err(BadRules::Voters(_, 4))));
    assert_eq!(
        refused("1 voter from \"m\" to \"n\"; 1 voter from \"m\" to \"n\"").to_string(),
        "the region that begins at m would have 2 voters: a region has 1, 3, 5 or 7, as even \
         numbers survive no more"
    );
}

#[test]
fn the_narrowest_range_governs_each_role_by_itself() {
    let text = "5 voters from \"b\" to \"y\"; 1 voter from \"c\" to \"d\"; 2 learners from \"c\" \
                to \"m\" where tier=analytics";
    let set = RuleSet::parse(text, 3).unwrap();
    let at = |key: &str| {
        let rules = set.at(key.as_bytes());
        rules.iter().map(|rule| rule.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at(""), ["3 voters"]);
    assert_eq!(at("b"), ["5 voters from \"b\" to \"y\""]);
    assert_eq!(at("c")[0], "1 voter from \"c\" to \"d\"");
    assert_eq!(at("d")[0], "5 voters from \"b\" to \"y\"");
    assert_eq!(at("d").len(), 2, "the learners stay");
    assert_eq!(at("y"), ["3 voters"]);
    assert_eq!((set.voters_at(b"x"), set.voters_at(b"z")), (5, 3));
    let keys = set.split_keys(&KeyRange::new("bb", "d"));
    assert_eq!(keys, ["c"]);
    let keys = set.split_keys(&KeyRange::default());
    assert_eq!(keys, ["b", "c", "d", "m", "y"]);
}

#[test]
fn what_a_region_lacks_and_has_too_much() {
    let stores = stores(&[&[], &[], &[], &[], &[]]);
    let set = RuleSet::of_replicas(3).unwrap();
    let rules = set.at(b"");
    let whole = peers(&[1, 2, 3], &[]);
    assert!(fit(rules, &whole, &stores).is_whole());
    assert_eq!(fit(rules, &peers(&[1, 2], &[]), &stores).lacking_voters(), 1);
    let more = peers(&[1, 2, 3, 4], &[5]);
    let more = fit(rules, &more, &stores);
    assert_eq!((on(&more.surplus), on(&more.spare)), (vec![4], vec![5]));
    assert!(more.misplaced.is_empty());
}

#[test]
fn a_voter_where_no_rule_wants_it_is_misplaced() {
    let stores = stores(&[
        &[("disk", "ssd")],
        &[("disk", "ssd")],
        &[("disk", "hdd")],
        &[("disk", "ssd")],
        &[("disk", "hdd"), ("tier", "analytics")],
    ]);
    let set = RuleSet::parse("3 voters where disk=ssd; 1 learner where tier=analytics", 3).unwrap();
    let rules = set.at(b"");
    let now = peers(&[1, 2, 3], &[4]);
    let now = fit(rules, &now, &stores);
    assert_eq!((on(&now.misplaced), on(&now.spare)), (vec![3], vec![4]));
    let lacking: Vec<(RuleRole, u32)> =
        now.lacking().map(|(rule, missing)| (rule.role, missing)).collect();
    assert_eq!(lacking, [(RuleRole::Voters, 1), (RuleRole::Learners, 1)]);
    let without = peers(&[1, 2], &[]);
    let wanted = |role, store| wants(rules, role, without.iter(), StoreId(store), &stores);
    assert!(wanted(RuleRole::Voters, 4) && !wanted(RuleRole::Voters, 5));
    assert!(wanted(RuleRole::Learners, 5) && !wanted(RuleRole::Learners, 4));
    assert!(!wanted(RuleRole::Voters, 9), "nobody knows that store");
}

#[test]
fn a_replica_that_fits_two_rules_makes_way() {
    let stores = stores(&[&[("zone", "a"), ("disk", "ssd")], &[("zone", "b"), ("disk", "ssd")]]);
    let set = RuleSet::parse("1 voter where disk=ssd; 2 voters where zone=a", 3).unwrap();
    // The first replica would take the first rule's place, which is the only one for the second.
    let both = peers(&[1, 2], &[]);
    let both = fit(set.at(b""), &both, &stores);
    assert!(both.misplaced.is_empty() && both.surplus.is_empty());
    assert_eq!(both.lacking_voters(), 1);
    let served: Vec<Vec<u64>> = both.served.iter().map(|(_, peers)| on(peers)).collect();
    assert_eq!(served, [vec![2], vec![1]]);
}

#[test]
fn joint_roles_count_as_what_they_become() {
    let peer = |role| Peer { id: PeerId(1), store: StoreId(1), role };
    assert_eq!(role_of(&peer(Role::IncomingVoter)), RuleRole::Voters);
    assert_eq!(role_of(&peer(Role::DemotingVoter)), RuleRole::Learners);
}

/// The most replicas that rules can serve, by trying everything.
fn most_served(rules: &[Rule], peers: &[Peer], stores: &Stores, left: &mut Vec<u32>) -> usize {
    let Some((peer, rest)) = peers.split_first() else { return 0 };
    let mut best = most_served(rules, rest, stores, left);
    for at in 0..rules.len() {
        let rule = &rules[at];
        if left[at] > 0 && rule.role == role_of(peer) && rule.allows(&stores[&peer.store]) {
            left[at] -= 1;
            best = best.max(1 + most_served(rules, rest, stores, left));
            left[at] += 1;
        }
    }
    best
}

proptest! {
    #[test]
    fn a_fit_serves_as_many_as_can_be(
        zones in proptest::collection::vec(0u8..3, 6),
        disks in proptest::collection::vec(0u8..2, 6),
        learners in proptest::collection::vec(any::<bool>(), 6),
        rules in proptest::collection::vec((1u32..3, any::<bool>(), 0u8..4, 0u8..3), 1..5),
    ) {
        let labels = |(zone, disk): (&u8, &u8)| BTreeMap::from([
            ("zone".to_owned(), zone.to_string()), ("disk".to_owned(), disk.to_string()),
        ]);
        let stores: Stores =
            (1..).map(StoreId).zip(zones.iter().zip(&disks).map(labels)).collect();
        let peers: Vec<Peer> = (1..).zip(&learners).map(|(store, learner)| Peer {
            id: PeerId(store),
            store: StoreId(store),
            role: if *learner { Role::Learner } else { Role::Voter },
        }).collect();
        let rules: Vec<Rule> = rules.iter().map(|(count, learner, zone, disk)| {
            let role = if *learner { "learners" } else { "voters" };
            let mut conditions = Vec::new();
            if *zone < 3 { conditions.push(format!("zone={zone}")) }
            if *disk < 2 { conditions.push(format!("disk={disk}")) }
            let place = if conditions.is_empty() { "" } else { " where " };
            Rule::parse(&format!("{count} {role}{place}{}", conditions.join(", "))).unwrap()
        }).collect();
        let found = fit(&rules, &peers, &stores);
        let served: usize = found.served.iter().map(|(_, peers)| peers.len()).sum();
        let mut left = rules.iter().map(|rule| rule.count).collect();
        prop_assert_eq!(served, most_served(&rules, &peers, &stores, &mut left));
        let out = found.surplus.len() + found.misplaced.len() + found.spare.len();
        prop_assert_eq!(served + out, peers.len());
    }

    #[test]
    fn any_rule_is_read_back(
        count in 1u32..9,
        learner in any::<bool>(),
        start in proptest::collection::vec(any::<u8>(), 0..6),
        more in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        let mut end = start.clone();
        end.extend(&more);
        // An empty end is no bound; a range is never empty.
        let end = if more.is_empty() { Vec::new() } else { end };
        let role = if learner { RuleRole::Learners } else { RuleRole::Voters };
        let range = KeyRange::new(start, end);
        let rule = Rule { role, count, range, conditions: Vec::new() };
        prop_assert_eq!(Rule::parse(&rule.to_string()).unwrap(), rule);
    }
}
