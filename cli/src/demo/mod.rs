//! `quorate demo NAME`: a story on a cluster of its own, from nothing to PASS or FAIL.
//!
//! Each demo starts real processes in a temporary folder, loads real records, does something to
//! the cluster while clients write and read, and checks every answer. What happens is told on
//! stderr as it happens; the verdict is the only line on stdout. Exit code 0 is PASS, 1 is FAIL.
//!
//! Demos use smaller regions and shorter limits than a cluster has by default, so that a person
//! sees the end of them; each says which.

mod analytics;
mod decommission;
mod failover;
mod impact;
mod join;
mod lineage;
mod load;
mod rebalance;
mod records;
mod split;
mod spread;
mod stage;
mod teller;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::load::Tally;
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// Which story is told.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Demo {
    /// Real data is loaded, and regions split while it is
    Split(Common),
    /// kill -9 of every store in turn: how long writes wait, and that none is lost
    Failover(failover::FailoverArgs),
    /// A fourth store arrives: replicas and leaders level out, then nothing moves
    Rebalance(rebalance::RebalanceArgs),
    /// Learners join, pair and are promoted, 3→5 voters; a lone one waits and stands by
    Join(Common),
    /// A store leaves while it serves; one that could not leave is refused
    Decommission(Common),
    /// Learners that stay learners serve scans
    Analytics(Common),
    /// Regions grow, shrink and move, a store arrives: p99 of writes during each, against before
    Impact(impact::ImpactArgs),
}

/// What all demos take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// KEY TAB VALUE lines to load [default: Debian's package index, by scripts/dataset.sh]
    #[arg(long, value_name = "FILE", env = "QUORATE_RECORDS")]
    records: Option<PathBuf>,
    /// Records to load at the most
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    count: usize,
    /// Seconds after which the demo has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    limit: u64,
    /// Keep the folder with data and logs
    #[arg(long)]
    keep: bool,
}

/// What a demo found.
#[derive(Debug, Default)]
struct Verdict {
    /// What is said in either case, in order.
    figures: Vec<String>,
    /// What should have been otherwise.
    failed: Vec<String>,
}

impl Verdict {
    /// A figure, for the last line.
    fn figure(&mut self, text: impl Into<String>) {
        self.figures.push(text.into());
    }
    /// A condition; `otherwise` says what is wrong where it does not hold.
    fn check(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.failed.push(otherwise.into());
        }
    }
    /// What came of the load: nothing may be lost, no answer may be wrong, and enough must have
    /// happened for that to mean something. Where no process was `Killed`, no operation may have
    /// failed either.
    fn load(&mut self, tally: &Tally, faults: Faults) {
        let Tally { acknowledged, lost, reads, violated, words, undetermined, failures } = tally;
        self.figure(format!("{lost} of {acknowledged} acknowledged writes lost"));
        self.figure(format!("{violated} of {reads} reads wrong"));
        if *undetermined > 0 {
            self.figure(format!("{undetermined} writes undetermined"));
        }
        self.check(*lost == 0, format!("{lost} acknowledged writes are gone"));
        self.check(*violated == 0, words.join("; "));
        self.check(*acknowledged >= 500, format!("only {acknowledged} writes went through"));
        self.check(*reads >= 100, format!("only {reads} reads were answered"));
        // A write without an outcome is told above: a leader that hands over may leave one.
        let failed = failures.iter().filter(|(kind, _)| **kind != UNDETERMINED);
        let words: Vec<String> = failed.map(|(kind, count)| format!("{count} {kind}")).collect();
        if !words.is_empty() {
            self.figure(format!("operations that failed: {}", words.join(", ")));
        }
        let allowed: &[&str] = match faults {
            Faults::None => &[],
            Faults::Killed => &EXPECTED,
        };
        for (kind, count) in failures.iter().filter(|(kind, _)| **kind != UNDETERMINED) {
            let holds = allowed.contains(kind);
            self.check(holds, format!("{count} operations failed with `{kind}`"));
        }
    }
    /// That it was over within its limit.
    fn within(&mut self, took: Duration, limit: Duration) {
        let words = format!("{} of {} allowed", output::time(took), output::time(limit));
        self.check(took <= limit, format!("it took {words}"));
        self.figure(words);
    }
    /// The records, all read back and compared.
    fn records(&mut self, compared: Outcome<u64>) {
        match compared {
            Ok(count) => self.figure(format!("{count} records equal")),
            Err(failure) => self.check(false, failure.words),
        }
    }
}

/// What was done to the processes while the load ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faults {
    /// Nothing that a client may notice by more than a pause.
    None,
    /// Stores were killed.
    Killed,
}

/// The failure of a write of which nobody can say whether it was applied.
const UNDETERMINED: &str = "undetermined";
/// Failures that a client may meet while processes are killed.
const EXPECTED: [&str; 3] = ["timeout", "unavailable", "without quorum"];

/// Resolves when the demo is told to end.
async fn told_to_end() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Then it ends by Ctrl-C alone.
            Err(error) => {
                output::note(&format!("SIGTERM cannot be listened to: {error}"));
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Runs a demo to its verdict.
///
/// # Errors
/// FAIL, said already.
pub(crate) async fn demo(demo: Demo) -> Outcome {
    let begun = Instant::now();
    let (name, common) = match &demo {
        Demo::Split(common) => ("split", common),
        Demo::Failover(args) => ("failover", &args.common),
        Demo::Rebalance(args) => ("rebalance", &args.common),
        Demo::Join(common) => ("join", common),
        Demo::Decommission(common) => ("decommission", common),
        Demo::Analytics(common) => ("analytics", common),
        Demo::Impact(args) => ("impact", &args.common),
    };
    let limit = Duration::from_secs(common.limit);
    let story = async {
        match demo {
            Demo::Split(common) => split::run(&common).await,
            Demo::Failover(args) => failover::run(&args).await,
            Demo::Rebalance(args) => rebalance::run(&args).await,
            Demo::Join(common) => join::run(&common).await,
            Demo::Decommission(common) => decommission::run(&common).await,
            Demo::Analytics(common) => analytics::run(&common).await,
            Demo::Impact(args) => impact::run(&args).await,
        }
    };
    let told = tokio::select! {
        told = story => told,
        () = told_to_end() => Err(Failure::error("interrupted")),
    };
    let took = begun.elapsed();
    let told = told.map(|mut verdict| {
        verdict.within(took, limit);
        verdict
    });
    let took = output::time(took);
    let (passed, words) = match told {
        Ok(verdict) if verdict.failed.is_empty() => (true, verdict.figures.join(", ")),
        Ok(verdict) => {
            let figures = verdict.figures.join(", ");
            (false, format!("{} ({figures})", verdict.failed.join("; ")))
        }
        Err(failure) => (false, failure.words),
    };
    let word = if passed { "PASS" } else { "FAIL" };
    output::emit(&format!("{word}: {name}: {} ({took})\n", words.replace('\n', " ")))?;
    if passed { Ok(()) } else { Err(Failure::quiet(Code::Error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally { acknowledged: 1_000, reads: 1_000, ..Tally::default() }
    }

    #[test]
    fn a_load_that_lost_nothing_passes() {
        let mut verdict = Verdict::default();
        verdict.load(&tally(), Faults::None);
        assert!(verdict.failed.is_empty(), "{:?}", verdict.failed);
        assert_eq!(verdict.figures[0], "0 of 1000 acknowledged writes lost");
    }

    #[test]
    fn a_lost_write_a_wrong_answer_and_an_idle_load_fail() {
        let bad = [
            Tally { lost: 1, ..tally() },
            Tally { violated: 1, words: vec!["went back".to_owned()], ..tally() },
            Tally { acknowledged: 10, ..tally() },
            Tally { failures: [("wrong cluster", 1)].into(), ..tally() },
        ];
        for tally in bad {
            let mut verdict = Verdict::default();
            verdict.load(&tally, Faults::Killed);
            assert_eq!(verdict.failed.len(), 1, "{tally:?}: {:?}", verdict.failed);
        }
    }

    #[test]
    fn operations_fail_only_where_processes_are_killed_and_are_told_in_any_case() {
        let failures = [("timeout", 2), ("unavailable", 1), ("undetermined", 3)];
        let tally = Tally { failures: failures.into(), undetermined: 3, ..tally() };
        let mut killed = Verdict::default();
        killed.load(&tally, Faults::Killed);
        assert!(killed.failed.is_empty(), "{:?}", killed.failed);
        let mut calm = Verdict::default();
        calm.load(&tally, Faults::None);
        assert_eq!(calm.failed.len(), 2, "{:?}", calm.failed);
        for verdict in [killed, calm] {
            let figures = verdict.figures.join(", ");
            assert!(figures.contains("failed: 2 timeout, 1 unavailable"), "{figures}");
        }
    }

    #[test]
    fn a_demo_that_took_too_long_fails() {
        let (second, limit) = (Duration::from_secs(1), Duration::from_secs(180));
        let mut verdict = Verdict::default();
        verdict.within(limit - second, limit);
        assert!(verdict.failed.is_empty() && verdict.figures[0].contains("allowed"));
        verdict.within(limit + second, limit);
        assert_eq!(verdict.failed.len(), 1);
    }
}
