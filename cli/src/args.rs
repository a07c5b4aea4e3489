//! The command line: which commands there are, and who runs them.

use clap::{Arg, ArgMatches, Command, FromArgMatches as _, Subcommand as _};
use quorate_placement::PlacementConfig;
use quorate_store::StoreConfig;

use crate::exit::{Failure, Outcome};
use crate::settings::{self, Settings};
use crate::{admin, bench, cluster, demo, kv, output, process};

// Commands on a cluster; `placement`, `store` and `config` have flags made from the settings and
// are added in `command`. (A doc comment would become the program's help.)
#[derive(Debug, clap::Subcommand)]
enum Remote {
    /// Start a cluster on this machine, or the one of last time again
    Up(cluster::UpArgs),
    /// Stop it; its data stays
    Down(cluster::DownArgs),
    /// Read and write keys
    #[command(subcommand)]
    Kv(kv::Kv),
    /// One line of health, then who is there; exit code 0 healthy, 2 degraded or not known yet, 3 unavailable
    Status(admin::StatusArgs),
    /// Restart every process of the local cluster, one after the other, while it serves
    RollingRestart(cluster::RestartArgs),
    /// Regions: where they are, why they are as they are, and requests about one
    #[command(subcommand)]
    Region(admin::RegionCommand),
    /// Operators: what placement is doing, step by step
    #[command(subcommand)]
    Operator(admin::OperatorCommand),
    /// Schedulers and checkers: list, pause, resume
    #[command(subcommand)]
    Scheduler(admin::SchedulerCommand),
    /// Members on their way: a region's replica (r7/s4) or a placement member (placement/4)
    #[command(subcommand)]
    Member(admin::MemberCommand),
    /// What happened, and with --follow what happens now
    Events(admin::EventsArgs),
    /// Settings of the whole cluster that can be changed while it runs
    #[command(subcommand)]
    Settings(admin::SettingsCommand),
    /// Tell a story on a cluster of its own, from nothing to PASS or FAIL
    #[command(subcommand)]
    Demo(demo::Demo),
    /// Measure rate and latency of this cluster, or of etcd
    Bench(bench::BenchArgs),
}

// What there is beside running a store.
#[derive(Debug, clap::Subcommand)]
enum StoreCommand {
    /// List the stores
    List(admin::ListArgs),
    /// Start one more store of the local cluster
    Add(cluster::AddArgs),
    /// Take a store out of the cluster: leaders go first, then replicas
    Remove(admin::RemoveArgs),
    /// Replace a store that will not come back
    Replace(admin::ReplaceArgs),
}

// What there is beside running a placement member.
#[derive(Debug, clap::Subcommand)]
enum PlacementCommand {
    /// Let another member lead placement
    TransferLeader(admin::TransferArgs),
}

/// The whole command line.
pub(crate) fn command() -> Command {
    let root = Command::new("quorate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A sharded, replicated key-value database that speaks TiKV's raw protocol")
        .after_help(
            "Exit codes: 0 healthy or done, 1 error, 2 degraded or not known yet, 3 unavailable.\n\
             Keys and values are UTF-8 with \\xNN for other bytes.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true);
    let store = StoreCommand::augment_subcommands(process_command::<StoreConfig>("store"))
        .about("Run a store (--join HOST:PORT: one more for a cluster that runs), or list, remove…")
        .args_conflicts_with_subcommands(true);
    let placement =
        PlacementCommand::augment_subcommands(process_command::<PlacementConfig>("placement"))
            .about("Run a placement member, or let another one lead")
            .args_conflicts_with_subcommands(true);
    let shown = |name, about| Command::new(name).about(about).args(settings::show::own_flags());
    let show = Command::new("show")
        .about("Show every setting of a process as it stands")
        .subcommand_required(true)
        .subcommand(
            shown("placement", "Of a placement member").args(settings::flags::<PlacementConfig>()),
        )
        .subcommand(shown("store", "Of a store").args(settings::flags::<StoreConfig>()));
    let config = Command::new("config")
        .about("Settings of a process")
        .subcommand_required(true)
        .subcommand(show);
    Remote::augment_subcommands(root).subcommand(placement).subcommand(store).subcommand(config)
}

fn process_command<S: Settings>(name: &'static str) -> Command {
    let flags: Vec<Arg> = settings::flags::<S>();
    Command::new(name).args(flags).after_help(
        "Flags win over the environment (QUORATE_…), which wins over the file given with --config.",
    )
}

/// Runs what was asked for.
///
/// # Errors
/// Whatever the command says.
pub(crate) fn run(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("placement", matches)) if matches.subcommand().is_some() => {
            match parsed(PlacementCommand::from_arg_matches(matches))? {
                PlacementCommand::TransferLeader(args) => wait(admin::transfer_leader(&args)),
            }
        }
        Some(("placement", matches)) => wait(process::placement(matches)),
        Some(("store", matches)) if matches.subcommand().is_some() => {
            match parsed(StoreCommand::from_arg_matches(matches))? {
                StoreCommand::List(args) => wait(admin::list(&args)),
                StoreCommand::Add(args) => wait(cluster::add(&args)),
                StoreCommand::Remove(args) => wait(admin::remove(&args)),
                StoreCommand::Replace(args) => wait(admin::replace(&args)),
            }
        }
        Some(("store", matches)) => process::store(matches),
        Some(("config", matches)) => config(matches),
        Some(_) | None => match parsed(Remote::from_arg_matches(matches))? {
            Remote::Up(args) => wait(cluster::up(args)),
            Remote::Down(args) => cluster::down(&args),
            Remote::Kv(command) => wait(kv::run(command)),
            Remote::Status(args) => wait(admin::status(&args)),
            Remote::Region(command) => wait(admin::region(command)),
            Remote::RollingRestart(args) => wait(cluster::restart(&args)),
            Remote::Operator(command) => wait(admin::operator(command)),
            Remote::Scheduler(command) => wait(admin::scheduler(command)),
            Remote::Member(command) => wait(admin::member(command)),
            Remote::Events(args) => wait(admin::events(&args)),
            Remote::Settings(command) => wait(admin::settings(command)),
            Remote::Demo(demo) => wait(demo::demo(demo)),
            Remote::Bench(args) => wait(bench::bench(args)),
        },
    }
}

/// Runs a command that talks to a cluster. One thread is the cheapest way to wait for many
/// answers; nodes bring their own runtimes.
fn wait(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::error(format!("the runtime cannot start: {error}")))?;
    let outcome = runtime.block_on(command);
    // What still waits in the background must not hold up the end.
    runtime.shutdown_background();
    outcome
}

fn config(matches: &ArgMatches) -> Outcome {
    let shown = matches.subcommand().and_then(|(_, show)| show.subcommand());
    match shown {
        Some(("placement", matches)) => settings::show::show::<PlacementConfig>(matches),
        Some((_, matches)) => settings::show::show::<StoreConfig>(matches),
        None => Err(Failure::error("write `quorate config show store` or `… show placement`")),
    }
}

fn parsed<T>(result: Result<T, clap::Error>) -> Outcome<T> {
    result.map_err(|error| Failure::error(error.to_string()))
}

/// What the command line says, or how the process ends right away: help and versions go to
/// stdout with code 0, a usage error to stderr with code 1 (2 would mean degraded).
///
/// # Errors
/// The way to end.
pub(crate) fn parse() -> Outcome<ArgMatches> {
    command().try_get_matches().map_err(|error| {
        if error.use_stderr() {
            output::note(error.to_string().trim_end());
            Failure::quiet(crate::exit::Code::Error)
        } else {
            match output::emit(&error.to_string()) {
                Ok(()) => Failure::quiet(crate::exit::Code::Done),
                Err(failure) => failure,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_store_runs_or_lists() {
        let matches = |line: &str| command().try_get_matches_from(line.split(' '));
        let run = matches("quorate store --listen 127.0.0.1:1").unwrap();
        let (_, store) = run.subcommand().unwrap();
        assert_eq!(store.get_one::<String>("listen").unwrap(), "127.0.0.1:1");
        assert!(store.subcommand().is_none());
        assert!(matches("quorate store list -o json").is_ok());
        let join = matches("quorate store --join 127.0.0.1:1").unwrap();
        let (_, store) = join.subcommand().unwrap();
        assert_eq!(store.get_one::<String>("placement").unwrap(), "127.0.0.1:1");
        for line in [
            "store add",
            "store remove 2 --watch",
            "store replace s3 --with s5",
            "region add-replica r7 s4 --learner",
            "region move-replica 7 1 4",
            "region merge r7 --into 8 --no-wait",
            "region merge 7 --cancel",
            "operator list --ended",
            "scheduler pause balance-region",
            "member watch r7",
            "member replace placement/3 --with 5",
            "member promote r7/s4",
            "placement transfer-leader 2",
            "events --follow -o json",
            "settings set replicas=5 a.b=c",
            "rolling-restart --only stores",
            "demo split --limit 60",
        ] {
            assert!(matches(&format!("quorate {line}")).is_ok(), "{line}");
        }
        for line in [
            "store remove 2 --cancel --watch",
            "member promote r7",
            "region add-replica s7 4",
            "region merge",
            "region merge r7 --into r8 --cancel",
            "settings set replicas",
            "demo nothing",
        ] {
            assert!(matches(&format!("quorate {line}")).is_err(), "{line}");
        }
        assert!(matches("quorate store --listn 127.0.0.1:1").is_err());
        assert!(matches("quorate config show store --origin -o plain").is_ok());
        assert!(matches("quorate kv put a").is_err());
        assert!(matches("quorate region split").is_err());
    }
}
