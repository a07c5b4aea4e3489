//! `quorate bench`: one load generator for this cluster and for etcd.
//!
//! Same keys, same values, same closed loop, same number of connections. The
//! generator runs on one thread: with many requests in flight on few connections
//! that is the cheapest way, and what it costs is reported beside the rest.

mod keys;
mod load;
mod prepare;
mod report;
mod target;
mod usage;

use std::time::Duration;

use quorate_proto::limits::MAX_VALUE_BYTES;
use serde_json::json;

use self::keys::{Distribution, Draw};
use self::load::Until;
use self::report::Report;
use self::target::{System, Target};
use self::usage::Watched;
use crate::cluster::find::{self, Connection};
use crate::exit::{Failure, Outcome};
use crate::output;

/// The counter of syncs in this cluster's metrics.
const OWN_SYNCS: &str = "quorate_engine_syncs_total";
/// The counter of syncs in etcd's metrics.
const ETCD_SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";
/// Pause between the load and the run, for what the load left to do.
const SETTLE: Duration = Duration::from_secs(1);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// Only writes
    Put,
    /// Only reads
    Get,
    /// Reads and writes, see --reads
    Mixed,
    /// YCSB A: half reads, zipfian
    A,
    /// YCSB B: 95 % reads, zipfian
    B,
    /// YCSB C: only reads, zipfian
    C,
}

impl Workload {
    /// Name, share of reads in percent, and the distribution where none is asked for.
    fn shape(self, reads: u8) -> (&'static str, u8, Distribution) {
        match self {
            Self::Put => ("put", 0, Distribution::Uniform),
            Self::Get => ("get", 100, Distribution::Uniform),
            Self::Mixed => ("mixed", reads, Distribution::Uniform),
            Self::A => ("a", 50, Distribution::Zipfian),
            Self::B => ("b", 95, Distribution::Zipfian),
            Self::C => ("c", 100, Distribution::Zipfian),
        }
    }
}

/// Measures rate and latency.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// What clients do
    #[arg(long, value_enum, default_value_t = Workload::Mixed)]
    workload: Workload,
    /// Share of reads of the mixed workload, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 50,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    reads: u8,
    /// How keys are drawn [default: uniform; zipfian for a, b, c]
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,
    /// Keys there are, of 16 bytes each
    #[arg(long, value_name = "COUNT", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    value_size: usize,
    /// Clients, each with one operation at a time
    #[arg(long, value_name = "COUNT", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// Sets of connections that clients share in turn; as many as clients: each its own
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Split the keys into this many regions first
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    regions: Option<u64>,
    /// Write every key once first
    #[arg(long)]
    load: bool,
    /// Wait until leaders are spread over the stores within a tenth
    #[arg(long)]
    balanced: bool,
    /// Only prepare: --regions, --load, --balanced
    #[arg(long)]
    prepare: bool,
    /// Length of the measured run
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Instead of a length: operations of the measured run
    #[arg(long, value_name = "COUNT", conflicts_with = "seconds",
          value_parser = clap::value_parser!(u64).range(1..))]
    ops: Option<u64>,
    /// Length of the run before that, which does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The system that is measured
    #[arg(long, value_enum, default_value_t = System::Quorate)]
    target: System,
    /// Client addresses of etcd
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required_if_eq("target", "etcd")
    )]
    endpoints: Vec<String>,
    /// Processes whose processor time counts [default: those of `quorate up`]
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pids: Vec<u32>,
    #[command(flatten)]
    shape: output::Shape,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, preparing failed, or operations failed.
pub(crate) async fn bench(args: BenchArgs) -> Outcome {
    let (workload, reads, usual) = args.workload.shape(args.reads);
    let distribution = args.distribution.unwrap_or(usual);
    if args.value_size > MAX_VALUE_BYTES {
        return Err(Failure::error(format!(
            "--value-size {} is over the limit of {MAX_VALUE_BYTES} bytes",
            args.value_size
        )));
    }
    let length = |seconds: f64, flag: &str| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::error(format!("--{flag} {seconds}: {error}")))
    };
    let (warm_up, time) = (length(args.warm_up, "warm-up")?, length(args.seconds, "seconds")?);
    let watched = watched(&args)?;
    let targets = Target::connect(
        args.target,
        &args.connection,
        &args.endpoints,
        usize::from(args.clients),
        usize::from(args.connections),
    )
    .await?;
    let draw = Draw::new(args.seed, args.keys, distribution, args.value_size);
    prepare(&args, &targets, &draw).await?;
    if args.prepare {
        return Ok(());
    }
    let until = args.ops.map_or(Until::Elapsed(time), Until::Operations);
    let measured = load::run(targets, &draw, reads, warm_up, until, &watched).await?;
    let asked = vec![
        ("system", json!(args.target.name())),
        ("workload", json!(workload)),
        ("reads_percent", json!(reads)),
        ("distribution", json!(distribution.name())),
        ("clients", json!(args.clients)),
        ("connections", json!(args.connections)),
        ("keys", json!(args.keys)),
        ("value_bytes", json!(args.value_size)),
    ];
    let report = Report { asked, measured };
    output::emit(&report.render(args.shape.format()))?;
    output::note(&report.line());
    judge(&report)
}

/// A run in which operations failed is no measurement.
fn judge(report: &Report) -> Outcome {
    let measured = &report.measured;
    if measured.misses > 0 {
        output::note(&format!(
            "{} reads found nothing: write all keys first with --load",
            measured.misses
        ));
    }
    match &measured.first_error {
        None => Ok(()),
        Some(words) => Err(Failure::error(format!(
            "{} operations failed, the first one with: {words}",
            measured.errors
        ))),
    }
}

async fn prepare(args: &BenchArgs, targets: &[Target], draw: &Draw) -> Outcome {
    match args.target {
        System::Etcd => {}
        System::Quorate => {
            let placement = args.connection.placement_client().await?;
            if let Some(regions) = args.regions {
                prepare::split(&placement, args.keys, regions).await?;
            }
            if args.balanced {
                prepare::balance(&placement).await?;
            }
        }
    }
    if args.load {
        prepare::load(targets, draw, args.keys).await?;
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

/// Whose processor time and syncs count.
fn watched(args: &BenchArgs) -> Outcome<Watched> {
    let mut watched = Watched { pids: args.pids.clone(), ..Watched::default() };
    match args.target {
        System::Etcd => {
            watched.status = args.endpoints.clone();
            watched.sync_metric = ETCD_SYNCS.to_owned();
        }
        System::Quorate => {
            watched.sync_metric = OWN_SYNCS.to_owned();
            if args.connection.placement.is_empty() {
                let (_, cluster) = find::local()?;
                for member in &cluster.members {
                    watched.status.push(member.status_address.clone());
                    if args.pids.is_empty() {
                        watched.pids.extend(member.running().map(|process| process.pid));
                    }
                }
            }
        }
    }
    Ok(watched)
}
