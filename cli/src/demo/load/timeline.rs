//! When each place was written, and how long that took: a plain value.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds.
const MAX_MICROS: u64 = 60_000_000;

/// One acknowledged write.
#[derive(Clone, Copy, Debug)]
struct Written {
    place: u16,
    /// Since the start of the load.
    at: Duration,
    took_micros: u32,
}

/// All acknowledged writes in the order of their answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    written: Vec<Written>,
    places: u16,
}

/// Rate and latencies between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Writes a second.
    pub(crate) rate: f64,
    /// Median latency.
    pub(crate) p50: Duration,
    /// Latency of 99 of 100.
    pub(crate) p99: Duration,
}

impl Timeline {
    /// Of so many places.
    pub(super) fn new(places: usize) -> Self {
        Self { written: Vec::new(), places: u16::try_from(places).unwrap_or(u16::MAX) }
    }
    /// A write was acknowledged.
    pub(super) fn record(&mut self, place: u16, at: Duration, took: Duration) {
        let took_micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.written.push(Written { place, at, took_micros });
    }
    /// The writes between two moments, both included. They are in order, so nobody waits long for
    /// a look at the end of a long load.
    fn between(&self, from: Duration, to: Duration) -> &[Written] {
        let first = self.written.partition_point(|written| written.at < from);
        let last = self.written.partition_point(|written| written.at <= to);
        &self.written[first..last.max(first)]
    }
    /// Writes of each place after a moment.
    pub(crate) fn writes_after(&self, after: Duration) -> Vec<usize> {
        let mut writes = vec![0; usize::from(self.places)];
        for written in self.written.iter().rev().take_while(|written| written.at > after) {
            if let Some(count) = writes.get_mut(usize::from(written.place)) {
                *count += 1;
            }
        }
        writes
    }
    /// The longest that one place was not written between two moments, and which one.
    pub(crate) fn longest_gap(&self, from: Duration, to: Duration) -> (Duration, usize) {
        self.longest_gap_of(|_| true, from, to)
    }
    /// [`Self::longest_gap`] of some of the places.
    pub(crate) fn longest_gap_of(
        &self,
        counts: impl Fn(usize) -> bool,
        from: Duration,
        to: Duration,
    ) -> (Duration, usize) {
        let mut last = vec![from; usize::from(self.places)];
        let mut longest = (Duration::ZERO, 0);
        let inside = self.between(from, to).iter();
        let inside = inside.filter(|written| counts(usize::from(written.place)));
        for Written { place, at, .. } in inside {
            let place = usize::from(*place);
            let Some(last) = last.get_mut(place) else { continue };
            longest = longest.max((at.saturating_sub(*last), place));
            *last = (*last).max(*at);
        }
        for (place, last) in last.into_iter().enumerate().filter(|(place, _)| counts(*place)) {
            longest = longest.max((to.saturating_sub(last), place));
        }
        longest
    }
    /// Rate and latencies between two moments.
    pub(crate) fn figures(&self, from: Duration, to: Duration) -> Figures {
        let mut histogram = Histogram::<u64>::new_with_max(MAX_MICROS, 3).ok();
        let mut count = 0u32;
        for written in self.between(from, to) {
            count += 1;
            if let Some(histogram) = &mut histogram {
                histogram.saturating_record(u64::from(written.took_micros).max(1));
            }
        }
        let seconds = to.saturating_sub(from).as_secs_f64().max(1e-9);
        let at = |quantile| {
            let micros = histogram.as_ref().map_or(0, |all| all.value_at_quantile(quantile));
            Duration::from_micros(micros)
        };
        Figures { rate: f64::from(count) / seconds, p50: at(0.5), p99: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_gap_is_that_of_one_place_and_reaches_to_the_end() {
        let mut timeline = Timeline::new(2);
        let (first, second) = ([10, 20, 30, 40, 500], [15, 300, 480]);
        let mut all: Vec<(u64, u16)> = first.map(|at| (at, 0)).into();
        all.extend(second.map(|at| (at, 1)));
        // In the order of their answers, as a load records them.
        all.sort_unstable();
        for (at, place) in all {
            timeline.record(place, millis(at), millis(1 + u64::from(place)));
        }
        assert_eq!(timeline.longest_gap(millis(0), millis(510)), (millis(460), 0));
        assert_eq!(timeline.longest_gap(millis(0), millis(45)), (millis(30), 1));
        assert_eq!(timeline.longest_gap(millis(490), millis(2_000)), (millis(1_510), 1));
        assert_eq!(timeline.longest_gap_of(|place| place == 1, millis(0), millis(510)).1, 1);
        assert_eq!(timeline.longest_gap_of(|_| false, millis(0), millis(510)).0, millis(0));
        assert_eq!(timeline.writes_after(millis(15)), [4, 2]);
    }

    #[test]
    fn figures_are_of_the_window() {
        let mut timeline = Timeline::new(1);
        (1..=1_000).for_each(|at| timeline.record(0, millis(at), Duration::from_micros(at)));
        let figures = timeline.figures(millis(501), millis(1_000));
        assert_eq!((figures.rate.round(), figures.p50), (1_002.0, Duration::from_micros(750)));
        assert_eq!(timeline.figures(millis(5_000), millis(6_000)).rate, 0.0);
    }
}
