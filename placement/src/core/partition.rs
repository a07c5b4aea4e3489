//! Stores that do not hear each other though placement hears both: the network between them is
//! broken, and nobody is down.
//!
//! A store names in its reports whom it does not hear. That may be a store that has just died, of
//! which placement does not know yet. So a pair counts only once **both** have reported well after
//! the first complaint. It is told once by each leader of placement, and once more when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_consensus::time::Instant;
use quorate_proto::{NodeId, RegionId, StoreId};

use super::events::{News, Severity};

/// Both have to report so long after the first complaint: longer than a process takes to start
/// again, or a store's reports to stop.
const PATIENCE: Duration = Duration::from_secs(3);
/// With more stores than this one event is told for all of them.
const MOST_EVENTS: usize = 8;

/// One direction of one pair.
#[derive(Clone, Copy, Debug)]
struct Cut {
    since: Instant,
    told: bool,
}

/// See the module. As large as the reports, which are bounded.
#[derive(Debug, Default)]
pub struct Partitions {
    /// Who does not hear whom.
    cuts: BTreeMap<(StoreId, StoreId), Cut>,
    /// Those that were told and are over, until the next look.
    over: BTreeSet<(StoreId, StoreId)>,
}

impl Partitions {
    /// How many pairs of stores do not hear each other, as far as that was told.
    pub fn told(&self) -> usize {
        self.cuts.values().filter(|cut| cut.told).count()
    }

    /// A store reports whom it does not hear.
    pub fn reported(&mut self, store: StoreId, unheard: &[StoreId], now: Instant) {
        let over = &mut self.over;
        self.cuts.retain(|pair, cut| {
            let is_over = pair.0 == store && !unheard.contains(&pair.1);
            if is_over && cut.told {
                over.insert(*pair);
            }
            !is_over
        });
        for other in unheard.iter().filter(|other| **other != store) {
            let told = self.over.remove(&(store, *other));
            self.cuts.entry((store, *other)).or_insert(Cut { since: now, told });
        }
    }

    /// What has changed by now. `heard_at`: when placement last heard a store that it takes for
    /// alive.
    pub fn look(&mut self, heard_at: impl Fn(StoreId) -> Option<Instant>, at_ms: u64) -> Vec<News> {
        let mut found: BTreeMap<StoreId, Vec<StoreId>> = BTreeMap::new();
        self.cuts.retain(|(store, other), cut| {
            // Of one that is down itself nothing is known; the other is told of as down.
            let (Some(one), Some(two)) = (heard_at(*store), heard_at(*other)) else { return false };
            let proven = one.min(two) >= cut.since + PATIENCE;
            if proven && !cut.told {
                cut.told = true;
                found.entry(*store).or_default().push(*other);
            }
            true
        });
        let mut healed: BTreeMap<StoreId, Vec<StoreId>> = BTreeMap::new();
        for (store, other) in std::mem::take(&mut self.over) {
            healed.entry(store).or_default().push(other);
        }
        let mut news = tell(found, Severity::Critical, "partition-found", at_ms, |one, others| {
            format!("{one} does not hear {others}, though placement hears both")
        });
        news.extend(tell(healed, Severity::Info, "partition-healed", at_ms, |one, others| {
            format!("{one} hears {others} again")
        }));
        news
    }
}

fn tell(
    pairs: BTreeMap<StoreId, Vec<StoreId>>,
    severity: Severity,
    kind: &str,
    at_ms: u64,
    words: impl Fn(&str, &str) -> String,
) -> Vec<News> {
    let news = |text: String, node: NodeId| News {
        at_ms,
        severity,
        kind: kind.to_owned(),
        text,
        region: RegionId(0),
        node,
    };
    if pairs.len() > MOST_EVENTS {
        let others: BTreeSet<StoreId> = pairs.values().flatten().copied().collect();
        let all = names(pairs.keys().copied());
        return vec![news(words(&all, &names(others.into_iter())), NodeId(0))];
    }
    let each = |(store, others): (StoreId, Vec<StoreId>)| {
        news(words(&store.to_string(), &names(others.into_iter())), store.into())
    };
    pairs.into_iter().map(each).collect()
}

/// The first few of them.
pub(super) fn names<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    /// Most that are named.
    const NAMED: usize = 8;
    let more = all.len().saturating_sub(NAMED);
    let mut text = all.take(NAMED).map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
