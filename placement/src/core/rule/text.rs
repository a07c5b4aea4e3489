//! Placement rules as people write them.
//!
//! ```text
//! rules     = rule { (";" | newline) rule }
//! rule      = count ("voter" | "voters" | "learner" | "learners")
//!             [ "from" key ] [ "to" key ] [ "where" condition { "," condition } ]
//! key       = '"' text '"'          as keys are shown everywhere, and `\x22` for a quotation mark
//! condition = name "=" value { "|" value }  |  name "!=" value { "|" value }  |  name  |  "!" name
//! ```
//! Without `from`, a range begins with the first key; without `to`, it has no end. What is shown is
//! read back as the same rule.

use std::collections::BTreeSet;
use std::fmt;

use quorate_proto::{KeyRange, key};

use super::{BadRules, Condition, Rule, RuleRole, RuleSet};
use crate::core::labels::is_label_name;

impl RuleSet {
    /// Rules from their text, and `replicas` voters where none of them speaks of voters.
    ///
    /// # Errors
    /// What cannot be read or cannot be, and what to write instead.
    pub fn parse(text: &str, replicas: u32) -> Result<Self, BadRules> {
        let mut rules = Vec::new();
        for line in text.lines() {
            for rule in split_outside_quotes(line, ';') {
                if !rule.trim().is_empty() {
                    rules.push(Rule::parse(rule)?);
                }
            }
        }
        Self::new(rules, replicas)
    }
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.given().iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{rule}")?;
        }
        Ok(())
    }
}

impl Rule {
    /// A rule from its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadRules> {
        let text = text.trim();
        let mut rest = text;
        read(&mut rest).map_err(|why| BadRules::Text { rule: text.to_owned(), why })
    }
}

/// The whole text; what it cannot be, in words.
fn read(rest: &mut &str) -> Result<Rule, String> {
    let count = word(rest);
    let count: u32 =
        count.parse().map_err(|_| format!("it begins with {count:?}, not a number"))?;
    if count == 0 {
        return Err("0 replicas are none: leave the rule away".to_owned());
    }
    let role = match word(rest) {
        "voter" | "voters" => RuleRole::Voters,
        "learner" | "learners" => RuleRole::Learners,
        other => return Err(format!("replicas are voters or learners, not {other:?}")),
    };
    let mut range = KeyRange::default();
    let mut conditions = Vec::new();
    loop {
        match word(rest) {
            "from" => range.start = quoted_key(rest)?.into(),
            "to" => range.end = quoted_key(rest)?.into(),
            "where" => {
                for condition in std::mem::take(rest).split(',') {
                    conditions.push(read_condition(condition.trim())?);
                }
            }
            "" => break,
            other => return Err(format!("{other:?} is none of from, to and where")),
        }
    }
    if !range.end.is_empty() && range.start >= range.end {
        return Err("its range ends before it begins".to_owned());
    }
    Ok(Rule { role, count, range, conditions })
}

fn word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}

fn quoted_key(rest: &mut &str) -> Result<Vec<u8>, String> {
    let bad = || "a key stands between quotation marks".to_owned();
    let text = rest.trim_start().strip_prefix('"').ok_or_else(bad)?;
    let (quoted, after) = text.split_once('"').ok_or_else(bad)?;
    *rest = after;
    key::parse(quoted).map_err(|error| error.to_string())
}

fn read_condition(text: &str) -> Result<Condition, String> {
    let name = |name: &str| match name.trim() {
        name if is_label_name(name) => Ok(name.to_owned()),
        name => Err(format!("{name:?} is no name of a label")),
    };
    let values = |values: &str| {
        let mut read = BTreeSet::new();
        for value in values.split('|').map(str::trim) {
            if !is_label_name(value) {
                return Err(format!("{value:?} is no value of a label"));
            }
            read.insert(value.to_owned());
        }
        Ok(read)
    };
    if let Some((label, listed)) = text.split_once("!=") {
        Ok(Condition::NotIn(name(label)?, values(listed)?))
    } else if let Some((label, listed)) = text.split_once('=') {
        Ok(Condition::In(name(label)?, values(listed)?))
    } else if let Some(label) = text.strip_prefix('!') {
        Ok(Condition::Lacks(name(label)?))
    } else {
        Ok(Condition::Has(name(text)?))
    }
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match (self.role, self.count) {
            (RuleRole::Voters, 1) => "voter",
            (RuleRole::Voters, _) => "voters",
            (RuleRole::Learners, 1) => "learner",
            (RuleRole::Learners, _) => "learners",
        };
        write!(f, "{} {role}", self.count)?;
        let quoted = |key: &[u8]| key::display(key).replace('"', "\\x22");
        if !self.range.start.is_empty() {
            write!(f, " from \"{}\"", quoted(&self.range.start))?;
        }
        if !self.range.end.is_empty() {
            write!(f, " to \"{}\"", quoted(&self.range.end))?;
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if index == 0 { " where " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| {
            values.iter().map(String::as_str).collect::<Vec<_>>().join("|")
        };
        match self {
            Condition::In(name, values) => write!(f, "{name}={}", list(values)),
            Condition::NotIn(name, values) => write!(f, "{name}!={}", list(values)),
            Condition::Has(name) => write!(f, "{name}"),
            Condition::Lacks(name) => write!(f, "!{name}"),
        }
    }
}
