//! Where stores stand, and how far apart the replicas of a region are.
//!
//! A cluster names the **levels** of its failure domains from the widest to the narrowest, such as
//! `zone, rack, host`; a store says with its labels where it stands on each. Two stores are
//! **separated** from the widest level on at which both have a label and the labels differ; a store
//! without a label may stand anywhere, so it counts as standing with the others.
//!
//! How isolated the replicas of a region are is counted in separated pairs, the widest level first:
//! three replicas in three zones have three pairs apart by zone, in two zones two, in one zone
//! none. More pairs at a wider level outweigh any number at narrower ones, so that replicas spread
//! over zones before they spread over racks. Counting pairs also puts five replicas on three zones
//! as 2 + 2 + 1, which survives the loss of any zone, and not as 3 + 1 + 1.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// Most levels: each takes a byte of [`Isolation`].
pub const MAX_LEVELS: usize = 8;

/// The names of the failure domains, from the widest to the narrowest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(Vec<String>);

impl Default for Levels {
    fn default() -> Self {
        Self(["zone", "rack", "host"].map(str::to_owned).to_vec())
    }
}

/// Why a list of levels is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadLevels {
    /// Too many.
    #[error("name at most {MAX_LEVELS} isolation levels, not {0}")]
    TooMany(usize),
    /// An empty or odd name.
    #[error(
        "{0:?} is no name of a label: write levels as zone,rack,host from the widest to the narrowest"
    )]
    Name(String),
    /// Twice the same.
    #[error("the isolation level {0} is named twice")]
    Twice(String),
}

impl Levels {
    /// Levels from a list with commas, such as `zone,rack,host`; an empty text is no level.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadLevels> {
        let mut levels: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            if !is_label_name(name) {
                return Err(BadLevels::Name(name.to_owned()));
            }
            if levels.iter().any(|known| known == name) {
                return Err(BadLevels::Twice(name.to_owned()));
            }
            levels.push(name.to_owned());
        }
        if levels.len() > MAX_LEVELS {
            return Err(BadLevels::TooMany(levels.len()));
        }
        Ok(Self(levels))
    }

    /// The names, widest first.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// True for what may be the name or the value of a label: letters, digits, `-`, `_`, `.`, `/`.
pub fn is_label_name(name: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    !name.is_empty() && name.chars().all(allowed)
}

/// Where a store stands: one number for each level, equal for equal labels, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location([u16; MAX_LEVELS]);

impl Location {
    /// The widest level that separates two stores; `None` where none does.
    pub fn separated_at(&self, other: &Location) -> Option<usize> {
        let pairs = self.0.iter().zip(&other.0);
        pairs.enumerate().find(|(_, (a, b))| **a != 0 && **b != 0 && a != b).map(|(at, _)| at)
    }
}

/// Gives out [`Location`]s of one picture of the cluster; those of two cannot be compared.
#[derive(Debug)]
pub struct Map<'a> {
    levels: &'a Levels,
    numbers: BTreeMap<(usize, &'a str), u16>,
}

impl<'a> Map<'a> {
    /// Without any store yet.
    pub fn new(levels: &'a Levels) -> Self {
        Self { levels, numbers: BTreeMap::new() }
    }

    /// Where a store with these labels stands.
    pub fn locate(&mut self, labels: &'a BTreeMap<String, String>) -> Location {
        let mut location = Location::default();
        for (at, name) in self.levels.names().iter().enumerate() {
            let Some(value) = labels.get(name).filter(|value| !value.is_empty()) else { continue };
            let next = u16::try_from(self.numbers.len() + 1).unwrap_or(u16::MAX);
            location.0[at] = *self.numbers.entry((at, value)).or_insert(next);
        }
        location
    }
}

/// How far replicas are apart. More is better; see the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isolation([u8; MAX_LEVELS]);

impl Isolation {
    /// What a replica at `place` adds to the isolation of those at `others`: the pairs it makes.
    pub fn of(place: &Location, others: impl Iterator<Item = Location>) -> Self {
        let mut isolation = Self::default();
        for other in others {
            if let Some(level) = place.separated_at(&other) {
                // Apart by zone is apart by rack and host as well.
                isolation.0[level..].iter_mut().for_each(|pairs| *pairs = pairs.saturating_add(1));
            }
        }
        isolation
    }

    /// The pairs of a whole group of replicas.
    pub fn among(places: &[Location]) -> Self {
        let mut isolation = Self::default();
        for (index, place) in places.iter().enumerate() {
            let more = Self::of(place, places[index + 1..].iter().copied());
            for (sum, pairs) in isolation.0.iter_mut().zip(more.0) {
                *sum = sum.saturating_add(pairs);
            }
        }
        isolation
    }

    /// The widest level at which `self` has fewer pairs apart than `other`, where that makes it
    /// worse; `None` where it is not.
    pub fn worse_at(&self, other: &Isolation) -> Option<usize> {
        let differs = (0..MAX_LEVELS).find(|at| self.0[*at] != other.0[*at])?;
        (self.0[differs] < other.0[differs]).then_some(differs)
    }
}
