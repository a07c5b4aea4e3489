//! How far a store is on its way out: a plain value, fed with what placement says.

use std::time::Duration;

use quorate_proto::wire::placement::OperatorStatus;

use crate::output;
use crate::screen;

/// A look at the replicas that still have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Since the start of the watch.
    pub(super) at: Duration,
    /// Replicas that are left.
    pub(super) left: u64,
    /// Regions that the store still leads.
    pub(super) leaders: u64,
}

/// The whole way.
#[derive(Debug)]
pub(super) struct Leaving {
    total: u64,
    first: Option<Look>,
    last: Option<Look>,
    moved_at: Duration,
}

impl Leaving {
    /// So many replicas have to go.
    pub(super) fn new(total: u64) -> Self {
        Self { total, first: None, last: None, moved_at: Duration::ZERO }
    }

    /// Takes a look into account.
    pub(super) fn look(&mut self, look: Look) {
        self.total = self.total.max(look.left);
        if self.last.as_ref().is_none_or(|last| last.left != look.left) {
            self.moved_at = look.at;
        }
        self.first.get_or_insert_with(|| look.clone());
        self.last = Some(look);
    }

    /// How long the number of replicas has not changed.
    pub(super) fn still_for(&self) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |last| last.at.saturating_sub(self.moved_at))
    }

    /// What is left to do at the rate so far; `None` until something moved.
    pub(super) fn eta(&self) -> Option<Duration> {
        let (first, last) = (self.first.as_ref()?, self.last.as_ref()?);
        let moved = first.left.checked_sub(last.left).filter(|moved| *moved > 0)?;
        let took = last.at.saturating_sub(first.at);
        Some(took.mul_f64(last.left as f64 / moved as f64))
    }

    /// A bar, what is left, and when it ends.
    pub(super) fn line(&self) -> String {
        let Some(last) = &self.last else { return "asking placement".to_owned() };
        let gone = self.total.saturating_sub(last.left);
        let mut line = format!(
            "{} {gone} of {} gone",
            screen::bar(gone, self.total),
            output::plural(self.total, "replica")
        );
        if last.leaders > 0 {
            line += &format!(", still leads {}", output::plural(last.leaders, "region"));
        }
        if let Some(eta) = self.eta() {
            line += &format!(", ETA {}", output::time(eta));
        }
        line
    }
}

/// The region that waits for longest among these operators, and why; `None` where none waits.
pub(super) fn longest_wait(operators: &[&OperatorStatus]) -> Option<String> {
    let under_way = operators.iter().filter(|operator| operator.ended.is_empty());
    let waits = under_way.filter(|operator| !operator.waits_for.is_empty());
    waits.min_by_key(|operator| operator.began_ms).map(|operator| {
        let (done, all) = (operator.done, operator.steps.len());
        format!(
            "r{} waits for {} ({}, step {} of {all})",
            operator.region_id,
            operator.waits_for,
            operator.kind,
            (done as usize + 1).min(all)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, left: u64) -> Look {
        Look { at: Duration::from_secs(at), left, leaders: left / 3 }
    }

    #[test]
    fn the_end_is_estimated_from_the_rate_so_far() {
        let mut leaving = Leaving::new(24);
        assert_eq!(leaving.eta(), None);
        leaving.look(look(0, 24));
        assert_eq!(leaving.eta(), None, "nothing has moved");
        leaving.look(look(10, 18));
        assert_eq!(leaving.eta(), Some(Duration::from_secs(30)));
        let line = leaving.line();
        assert!(line.ends_with("6 of 24 replicas gone, still leads 6 regions, ETA 30 s"), "{line}");
        leaving.look(look(40, 18));
        assert_eq!(leaving.still_for(), Duration::from_secs(30));
        leaving.look(look(41, 0));
        assert!(leaving.line().ends_with("24 of 24 replicas gone, ETA 0 µs"), "{}", leaving.line());
    }

    #[test]
    fn the_region_that_waits_longest_is_named_with_its_reason() {
        let operator = |region_id, began_ms, waits_for: &str| OperatorStatus {
            region_id,
            began_ms,
            waits_for: waits_for.to_owned(),
            kind: "move-replica".to_owned(),
            steps: vec![String::new(); 6],
            done: 1,
            ..OperatorStatus::default()
        };
        let operators =
            [operator(7, 50, "s4 to catch up"), operator(8, 20, "a free slot"), operator(9, 1, "")];
        let all: Vec<&OperatorStatus> = operators.iter().collect();
        assert_eq!(
            longest_wait(&all).as_deref(),
            Some("r8 waits for a free slot (move-replica, step 2 of 6)")
        );
        assert_eq!(longest_wait(&[]), None);
    }
}
