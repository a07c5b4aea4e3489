//! `quorate up`: a cluster from nothing, or the one of yesterday again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_proto::wire::placement::StatusResponse;

use super::description::{Cluster, Member, Role};
use super::find::{self, DATA_VARIABLE, DEFAULT_DATA};
use super::local::Local;
use super::lock::Lock;
use super::ports;
use super::spawn::Bond;
use crate::exit::{Failure, Outcome};
use crate::output;

/// Starts placement members and stores on this machine, or the same ones again.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Where the cluster keeps its data, logs and description.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_DATA, env = DATA_VARIABLE)]
    data: PathBuf,
    /// Placement members of a new cluster: 1, 3 or 5 [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = odd)]
    placements: Option<u16>,
    /// Stores of a new cluster, 1 to 64 [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    stores: Option<u16>,
    /// Discard the data at `quorate down`
    #[arg(long)]
    ephemeral: bool,
    /// First port of the placement members; every tenth is used [default: 2379, or free ones]
    #[arg(long, value_name = "PORT")]
    placement_port: Option<u16>,
    /// First port of the stores; every tenth is used [default: 20160, or free ones]
    #[arg(long, value_name = "PORT")]
    store_port: Option<u16>,
    /// Settings for every placement member, kept with the data
    #[arg(long, value_name = "FILE")]
    placement_config: Option<PathBuf>,
    /// Settings for every store, kept with the data [default: regions of 4 MiB, to see them split]
    #[arg(long, value_name = "FILE")]
    store_config: Option<PathBuf>,
    /// Seconds to wait until everything is healthy
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
    /// Stay in this login session (the scheduler shares processors by session, so that what is
    /// compared with each other must run in one)
    #[arg(long)]
    same_session: bool,
}

fn odd(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        Ok(_) | Err(_) => Err("a placement group has 1, 3 or 5 members".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// A port or folder in the way, a process that ends, or no health in time.
pub(crate) async fn up(args: UpArgs) -> Outcome {
    let shown = args.data.display().to_string();
    let folder = absolute(&args.data)?;
    let lock = Lock::take(&folder)?;
    let cluster = match Cluster::load(&folder)? {
        Some(cluster) => again(cluster, &args, &shown)?,
        None => {
            demonstrate(&folder)?;
            plan(&args)?
        }
    };
    keep_config(&folder, Role::Placement, args.placement_config.as_deref())?;
    keep_config(&folder, Role::Store, args.store_config.as_deref())?;
    find::remember(&folder);

    let already = cluster.members.iter().filter(|member| member.running().is_some()).count();
    if already == cluster.members.len() {
        output::note(&format!("already running: {already} processes ({shown})"));
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    let bond = if args.same_session { Bond::ThisSession } else { Bond::None };
    let mut local = Local::new(folder, cluster, bond, lock);
    let started = async {
        local.start_missing(deadline).await?;
        local.ready(|_| true, deadline)?;
        local.healthy(deadline).await
    }
    .await;
    let status = match started {
        Ok(status) => status,
        Err(mut failure) => {
            let runs = local.cluster().members.iter().filter(|one| one.running().is_some()).count();
            if runs > 0 {
                let runs = output::plural(runs as u64, "process").replace("processs", "processes");
                failure.words.push_str(&format!(
                    "; {runs} of this cluster go on running: try again, or end them with `quorate \
                     down`"
                ));
            }
            return Err(failure);
        }
    };
    output::emit(&summary(local.cluster(), &status, &shown))
}

/// The folder's full path, created where it is missing.
fn absolute(data: &Path) -> Outcome<PathBuf> {
    std::fs::create_dir_all(data).and_then(|()| data.canonicalize()).map_err(|error| {
        Failure::error(format!(
            "cannot create the data folder {}: {error}; choose another with --data",
            data.display()
        ))
    })
}

/// A cluster that exists: its shape and its addresses are what they were.
fn again(cluster: Cluster, args: &UpArgs, shown: &str) -> Outcome<Cluster> {
    let differs = |role: Role, asked: Option<u16>| {
        let count = cluster.of(role).count();
        asked.filter(|asked| usize::from(*asked) != count).map(|asked| (role, count, asked))
    };
    let difference =
        differs(Role::Placement, args.placements).or_else(|| differs(Role::Store, args.stores));
    if let Some((role, count, asked)) = difference {
        return Err(Failure::error(format!(
            "the cluster in {shown} has {count} {role} processes, not {asked}: leave the count \
             out, or choose another folder with --data"
        )));
    }
    if args.ephemeral && !cluster.ephemeral {
        return Err(Failure::error(format!(
            "the cluster in {shown} keeps its data: leave --ephemeral out, or choose another \
             folder with --data"
        )));
    }
    if args.placement_port.is_some() || args.store_port.is_some() {
        return Err(Failure::error(format!(
            "the cluster in {shown} has its addresses for good: leave the ports out, or choose \
             another folder with --data"
        )));
    }
    Ok(cluster)
}

/// A new cluster: counts and ports.
fn plan(args: &UpArgs) -> Outcome<Cluster> {
    let mut members = Vec::new();
    let roles = [
        (Role::Placement, args.placements.unwrap_or(3), args.placement_port, ports::PLACEMENT_PORT),
        (Role::Store, args.stores.unwrap_or(3), args.store_port, ports::STORE_PORT),
    ];
    for (role, count, asked, base) in roles {
        let chosen = match asked {
            Some(port) => ports::fixed(port, count).map_err(|holder| {
                let why = holder.map_or_else(
                    || format!("{count} processes do not fit above port {port}"),
                    |holder| holder.to_string(),
                );
                Failure::error(format!(
                    "{why}: stop it, or leave --{role}-port out to take free ones"
                ))
            })?,
            None => ports::choose(base, count).ok_or_else(|| {
                Failure::error(format!(
                    "no free ports found from {base} up: name some with --{role}-port"
                ))
            })?,
        };
        members.extend((1..).zip(chosen).map(|(number, port)| Member::at(role, number, port)));
    }
    Ok(Cluster::new(args.ephemeral, members))
}

/// A cluster for a while, discarded by `down`, at free ports away from those of [`up`]; another
/// process that does the same looks for them elsewhere first.
///
/// # Errors
/// No ports are free.
pub(crate) fn temporary(placements: u16, stores: u16) -> Outcome<Cluster> {
    let none = || Failure::error("no free ports found: stop what uses them");
    let own = u16::try_from(std::process::id() % 75).unwrap_or(0);
    let mut base = 12_000 + 200 * own;
    let mut members = Vec::new();
    for (role, count) in [(Role::Placement, placements), (Role::Store, stores)] {
        let chosen = ports::choose(base, count).ok_or_else(none)?;
        base = chosen.last().map_or(base, |last| last + 20);
        members.extend((1..).zip(chosen).map(|(number, port)| Member::at(role, number, port)));
    }
    Ok(Cluster::new(true, members))
}

/// Settings of the stores of a new cluster: small regions, so that a person sees them split.
const SMALL_REGIONS: &str = "\
# Settings of this cluster's stores, written by `quorate up`; change them and start it again.
# Small regions, so that they split before your eyes. Without these lines: 96 MiB.
[split]
region_bytes = 4194304
check_interval_ms = 500
";

/// Writes the settings of a new cluster's stores, unless there are some.
fn demonstrate(folder: &Path) -> Outcome {
    let path = folder.join("store.toml");
    if path.exists() {
        return Ok(());
    }
    std::fs::write(&path, SMALL_REGIONS).map_err(|error| {
        Failure::error(format!("cannot write {}: {error}; check the disk", path.display()))
    })
}

/// Keeps a copy of a settings file, so that the next `up` uses the same.
fn keep_config(folder: &Path, role: Role, from: Option<&Path>) -> Outcome {
    let Some(from) = from else { return Ok(()) };
    std::fs::copy(from, folder.join(format!("{role}.toml"))).map(|_| ()).map_err(|error| {
        Failure::error(format!(
            "cannot copy {} to {}: {error}; check the path",
            from.display(),
            folder.display()
        ))
    })
}

/// How this program was called, so that the next command can be copied.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "quorate".to_owned())
}

/// What a person sees at the end.
fn summary(cluster: &Cluster, status: &StatusResponse, data: &str) -> String {
    let leader = status.members.iter().find(|member| member.leader);
    let leader = leader.map_or_else(
        || "no leader".to_owned(),
        |leader| match cluster.of(Role::Placement).find(|one| one.address == leader.address) {
            Some(member) => format!("leader {}", member.name()),
            None => format!("leader {}", leader.name),
        },
    );
    let up = status.stores.iter().filter(|store| store.state == "Up").count();
    let replicas = usize::try_from(status.replicas).unwrap_or(usize::MAX);
    let regions = format!("{} regions, {}/{replicas} replicas", status.regions, up.min(replicas));
    let line = |role: Role, what: &str| {
        let count = cluster.of(role).count();
        let name = if count == 1 { format!("{role}-1") } else { format!("{role}-1..{count}") };
        let addresses: Vec<&str> = cluster.of(role).map(|member| member.address.as_str()).collect();
        format!("✔ {name:<16} {what:<25} {}\n", addresses.join(" "))
    };
    let kept = if cluster.ephemeral {
        "discarded by `quorate down`"
    } else {
        "kept; --ephemeral discards"
    };
    let program = program();
    format!(
        "{}{}Data    {data} ({kept})\nTry     {program} kv put hello world      Stop  {program} down\n",
        line(Role::Placement, &leader),
        line(Role::Store, &regions),
    )
}
