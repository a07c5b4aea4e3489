//! Placement rules: how many replicas a key range has, in which role, and on which stores.
//!
//! A rule speaks of one role in one key range: `3 voters`, or
//! `1 learner from "a" to "b" where tier=analytics`. Rules of one role and one range add up: two
//! voters in one zone and one in another are two rules. Ranges nest or are apart; **of each role,
//! the narrowest range that speaks of it governs a key**, so a narrow rule for learners keeps the
//! voters of the range around it. Where nobody speaks of voters, there are as many as the cluster's
//! setting `replicas` says.
//!
//! [`RuleSet`] is parsed and checked once ([`text`]); it cuts the key space into segments under the
//! same rules. A region that reaches over the end of a segment follows the rules at its first key
//! until it is split there ([`RuleSet::split_keys`]). [`fit`] tells what a region lacks, has too
//! much, and has in the wrong place.

pub mod fit;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::{KeyRange, key};
use thiserror::Error;

/// Most rules of a cluster.
pub const MAX_RULES: usize = 64;
/// Most voters of a region: more cost more and survive hardly more.
pub const MAX_VOTERS: u32 = 7;
/// Most learners of a region that rules ask for.
pub const MAX_LEARNERS: u32 = 8;

/// Which replicas a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleRole {
    /// Those that vote.
    Voters,
    /// Those that replicate without a vote, and stay so.
    Learners,
}

/// What the label of a store must be like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It has the label, with one of these values.
    In(String, BTreeSet<String>),
    /// It lacks the label, or has another value than these.
    NotIn(String, BTreeSet<String>),
    /// It has the label.
    Has(String),
    /// It lacks the label.
    Lacks(String),
}

impl Condition {
    /// True for a store with these labels.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Condition::In(name, values) => {
                labels.get(name).is_some_and(|value| values.contains(value))
            }
            Condition::NotIn(name, values) => {
                labels.get(name).is_none_or(|value| !values.contains(value))
            }
            Condition::Has(name) => labels.contains_key(name),
            Condition::Lacks(name) => !labels.contains_key(name),
        }
    }
}

/// A rule. Its text is read and shown by [`text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which replicas.
    pub role: RuleRole,
    /// How many. At least 1.
    pub count: u32,
    /// Of which keys.
    pub range: KeyRange,
    /// On which stores: all of these hold. Empty: on any.
    pub conditions: Vec<Condition>,
}

impl Rule {
    /// So many voters anywhere.
    pub fn voters(count: u32) -> Self {
        let range = KeyRange::default();
        Self { role: RuleRole::Voters, count, range, conditions: Vec::new() }
    }

    /// True where a store with these labels may hold a replica for it.
    pub fn allows(&self, labels: &BTreeMap<String, String>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(labels))
    }
}

/// Why rules cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRules {
    /// Not readable.
    #[error(
        "{rule:?} is no placement rule: {why}; write one as `3 voters` or \
         `1 learner from \"a\" to \"b\" where tier=analytics, zone!=x|y`"
    )]
    Text {
        /// The rule as it was given.
        rule: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too many.
    #[error("a cluster has at most {MAX_RULES} placement rules, not {0}")]
    TooMany(usize),
    /// Ranges that overlap in part.
    #[error("the ranges {0} and {1} overlap in part: let one contain the other, or cut them apart")]
    Crossing(String, String),
    /// A number of voters that survives no more than the one below it.
    #[error(
        "{0} would have {1} voters: a region has 1, 3, 5 or 7, as even numbers survive no more"
    )]
    Voters(String, u32),
    /// Too many learners.
    #[error("{0} would have {1} learners: rules ask for at most {MAX_LEARNERS}")]
    Learners(String, u32),
}

/// Keys under the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    start: Bytes,
    rules: Vec<Rule>,
}

/// All rules, checked. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// As they were given.
    given: Vec<Rule>,
    /// Ascending; the first one begins with the empty key.
    segments: Vec<Segment>,
}

impl RuleSet {
    /// So many voters for every region, anywhere.
    ///
    /// # Errors
    /// The number is even, 0, or too large.
    pub fn of_replicas(replicas: u32) -> Result<Self, BadRules> {
        Self::new(Vec::new(), replicas)
    }

    /// The rules, and `replicas` voters where none of them speaks of voters.
    ///
    /// # Errors
    /// What cannot be, and what to write instead.
    pub fn new(given: Vec<Rule>, replicas: u32) -> Result<Self, BadRules> {
        if given.len() > MAX_RULES {
            return Err(BadRules::TooMany(given.len()));
        }
        for (index, rule) in given.iter().enumerate() {
            let (a, others) = (&rule.range, &given[index + 1..]);
            let crosses = |b: &KeyRange| a.overlaps(b) && !a.covers(b) && !b.covers(a);
            if let Some(other) = others.iter().find(|other| crosses(&other.range)) {
                return Err(BadRules::Crossing(a.to_string(), other.range.to_string()));
            }
        }
        let mut starts = BTreeSet::from([Bytes::new()]);
        for rule in &given {
            starts.insert(rule.range.start.clone());
            if !rule.range.end.is_empty() {
                starts.insert(rule.range.end.clone());
            }
        }
        let mut segments: Vec<Segment> = Vec::new();
        for start in starts {
            let mut rules = governing(&given, RuleRole::Voters, &start);
            if rules.is_empty() {
                rules.push(Rule::voters(replicas));
            }
            rules.extend(governing(&given, RuleRole::Learners, &start));
            check_counts(&start, &rules)?;
            if segments.last().is_none_or(|before| before.rules != rules) {
                segments.push(Segment { start, rules });
            }
        }
        Ok(Self { given, segments })
    }

    /// The rules as they were given, without what `replicas` adds.
    pub fn given(&self) -> &[Rule] {
        &self.given
    }

    /// The rules that govern a key: those of voters first. Never empty.
    pub fn at(&self, key: &[u8]) -> &[Rule] {
        let after = self.segments.partition_point(|segment| segment.start.as_ref() <= key);
        self.segments.get(after.saturating_sub(1)).map_or(&[], |segment| &segment.rules)
    }

    /// Voters that a region which begins at the key shall have.
    pub fn voters_at(&self, key: &[u8]) -> u32 {
        let voters = self.at(key).iter().filter(|rule| rule.role == RuleRole::Voters);
        voters.map(|rule| rule.count).sum()
    }

    /// True where some rule lets a store with these labels hold replicas in that role.
    pub fn may_use(&self, role: RuleRole, labels: &BTreeMap<String, String>) -> bool {
        let mut rules = self.segments.iter().flat_map(|segment| &segment.rules);
        rules.any(|rule| rule.role == role && rule.allows(labels))
    }

    /// Where a region with this range must be split to lie under the same rules with all its
    /// keys.
    pub fn split_keys(&self, range: &KeyRange) -> Vec<Bytes> {
        let starts = self.segments.iter().map(|segment| &segment.start);
        starts.filter(|start| range.can_split_at(start)).cloned().collect()
    }
}

/// The rules of a role with the narrowest range that holds the key.
fn governing(given: &[Rule], role: RuleRole, key: &[u8]) -> Vec<Rule> {
    let speaks = |rule: &&Rule| rule.role == role && rule.range.contains(key);
    let narrowest =
        given.iter().filter(speaks).fold(None, |best: Option<&KeyRange>, rule| match best {
            Some(best) if rule.range.covers(best) => Some(best),
            Some(_) | None => Some(&rule.range),
        });
    let Some(narrowest) = narrowest else { return Vec::new() };
    given.iter().filter(speaks).filter(|rule| rule.range == *narrowest).cloned().collect()
}

fn check_counts(start: &[u8], rules: &[Rule]) -> Result<(), BadRules> {
    let total = |role| rules.iter().filter(|rule| rule.role == role).map(|rule| rule.count).sum();
    let place = || match start {
        [] => "every region".to_owned(),
        start => format!("the region that begins at {}", key::display(start)),
    };
    let voters: u32 = total(RuleRole::Voters);
    if voters.is_multiple_of(2) || voters > MAX_VOTERS {
        return Err(BadRules::Voters(place(), voters));
    }
    let learners = total(RuleRole::Learners);
    if learners > MAX_LEARNERS {
        return Err(BadRules::Learners(place(), learners));
    }
    Ok(())
}
